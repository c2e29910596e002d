"""Waiting for what other processes do."""

import time
from collections.abc import Callable

LOOK_SECONDS = 0.05


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    """Look until ``condition()`` holds; raises ``TimeoutError`` after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:  # the broker does not listen yet
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(LOOK_SECONDS)
