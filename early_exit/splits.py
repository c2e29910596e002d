"""The three parts of a dataset (docs/paper.md §2); standard library only, so that planning stays light."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"

SPLITS = (TRAIN, VALIDATION, TEST)
