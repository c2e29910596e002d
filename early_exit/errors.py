"""The root of this package's errors, and those that several modules raise."""


class EarlyExitError(Exception):
    """The input cannot be used; the message says what is wrong and why, in one readable line."""


class OutOfReach(EarlyExitError):
    """A server does not answer."""


class Diverged(EarlyExitError):
    """The loss is not finite, or far above that of guessing; a retry with the same seed diverges too."""
