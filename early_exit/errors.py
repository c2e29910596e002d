"""The root of this package's errors, and what is not an error of one file alone."""


class EarlyExitError(Exception):
    """What is given cannot be used; the message says what and why, in one line for people."""


class OutOfReach(EarlyExitError):
    """A server does not answer."""


class Diverged(EarlyExitError):
    """The loss is not finite, or far above that of guessing; trying again with the same seed helps nothing."""
