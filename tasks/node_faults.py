"""Errors that are the machine's fault and not the job's: it is put back uncharged, and this process pauses."""

import errno
from dataclasses import dataclass
from time import sleep

ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
}
CUDA_GONE = ("CUDA error", "CUDA driver", "No CUDA GPUs are available", "no CUDA-capable device")
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class StageNotImported(Exception):
    """A stage's code, or a library that it needs, could not be imported."""


def is_node_fault(error: BaseException) -> bool:
    """Whether another machine, or this one later, may well succeed: disk full or failing, import failing, GPU gone."""
    if isinstance(error, OSError):
        return error.errno in ERRNOS
    return isinstance(error, StageNotImported) or is_cuda_gone(error)


def is_cuda_gone(error: BaseException) -> bool:
    """Whether the GPU cannot be used; a process that has seen it can use it no more."""
    # by name, since torch is loaded where a stage needs it alone
    named = type(error).__name__ == "AcceleratorError"
    return named or (isinstance(error, RuntimeError) and any(text in str(error) for text in CUDA_GONE))


@dataclass
class Pause:
    """How long a process takes no job after its machine failed: twice as long every time, until a job succeeds."""

    seconds: float = FIRST_PAUSE_SECONDS

    def take(self) -> None:
        """Wait."""
        sleep(self.seconds)
        self.seconds = min(2 * self.seconds, LONGEST_PAUSE_SECONDS)

    def forget(self) -> None:
        """A job has succeeded."""
        self.seconds = FIRST_PAUSE_SECONDS
