"""What a training can end with besides weights."""


class Diverged(Exception):
    """The loss is not finite, or far above that of guessing; trying again with the same seed helps nothing."""
