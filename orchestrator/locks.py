"""Lock files, which the kernel releases when their holder dies, and those of a home folder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def lock(path: Path, *, shared: bool = False) -> Iterator[IO[str] | None]:
    """Hold a lock file; yields None if another process holds it.

    Waits up to a second, because ``is_held`` takes the lock for an instant.
    """
    with path.open("a+") as file:
        deadline = time.monotonic() + 1
        # polled, since flock has no time limit of its own
        while not (taken := _take(file, shared=shared)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield file if taken else None


def is_held(path: Path) -> bool:
    """Whether any process holds this lock."""
    # to append, since opening to write would erase the holder's pid
    with path.open("a+") as file:
        return not _take(file, shared=False)


def _take(file: IO[str], *, shared: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def supervisor_lock(home: Path) -> Path:
    """Held by the supervisor; contains its pid."""
    return home / "run" / "supervisor.lock"


def up_lock(home: Path) -> Path:
    """Held by ``orchestrator up``."""
    return home / "run" / "up.lock"


def clients_lock(home: Path) -> Path:
    """Shared by every command that watches a run."""
    return home / "run" / "clients.lock"
