"""When to start something again that keeps ending."""

import time
from dataclasses import dataclass

FIRST_SECONDS = 2.0
LONGEST_SECONDS = 60.0
EARLY_SECONDS = 10.0
"""What has lived for so long did not end because it cannot start."""


@dataclass
class Backoff:
    """Starts of one thing: at once after it has lived for a while, else later each time, without an end."""

    started: float | None = None
    """By the monotonic clock."""
    early_ends: int = 0
    """In a row."""

    @property
    def is_due(self) -> bool:
        """Whether it may be started; pauses count from the start before."""
        if self.started is None:
            return True
        pause = min(FIRST_SECONDS * (1 << self.early_ends), LONGEST_SECONDS)
        return time.monotonic() - self.started >= pause

    @property
    def has_settled(self) -> bool:
        """Whether the latest start has lasted for long enough, for one that still runs."""
        return self.started is not None and time.monotonic() - self.started >= EARLY_SECONDS

    def start(self) -> None:
        """It is started now."""
        self.started = time.monotonic()

    def end(self) -> None:
        """It has ended."""
        self.early_ends = 0 if self.has_settled else min(self.early_ends + 1, 10)
