"""One thin file per stage: read inputs, call the paper, return arrays and rows."""
