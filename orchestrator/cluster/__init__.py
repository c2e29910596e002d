"""The processes that do the work: where they are, how they start, what keeps them going."""
