"""The processes that do the work: where they run, how they start, what keeps them running."""
