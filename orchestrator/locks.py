"""Lock files, which the kernel frees with the process that holds them; and those of a home folder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def lock(path: Path, *, shared: bool = False) -> Iterator[IO[str] | None]:
    """Hold a lock file; None when another process holds it. The kernel frees it with the process.

    A second's patience: ``is_held`` takes the lock for an instant.
    """
    with path.open("a+") as file:
        deadline = time.monotonic() + 1
        while not (taken := _take(file, shared=shared)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield file if taken else None


def is_held(path: Path) -> bool:
    """Whether any process holds this lock."""
    with path.open("a+") as file:
        return not _take(file, shared=False)


def _take(file: IO[str], *, shared: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def supervisor_lock(home: Path) -> Path:
    """Held by the supervisor; its text is the supervisor's pid."""
    return home / "run" / "supervisor.lock"


def up_lock(home: Path) -> Path:
    """Held by ``orchestrator up``."""
    return home / "run" / "up.lock"


def clients_lock(home: Path) -> Path:
    """Shared by every command that watches a run."""
    return home / "run" / "clients.lock"
