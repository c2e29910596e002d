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
CUDA_GONE = (
    "No CUDA GPUs are available",
    "no CUDA-capable device",
    "busy or unavailable",
    "CUDA driver",
    "uncorrectable ECC error",
)
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class StageNotImported(Exception):
    """A stage's code, or a library that it needs, could not be imported."""


def is_node_fault(error: BaseException) -> bool:
    """Whether another machine, or this one later, may well succeed: disk full or failing, import failing, GPU gone."""
    if isinstance(error, OSError):
        return error.errno in ERRNOS
    is_gone = isinstance(error, RuntimeError) and any(text in str(error) for text in CUDA_GONE)
    return isinstance(error, StageNotImported) or is_gone


def has_lost_cuda(error: BaseException) -> bool:
    """Whether this process can use the GPU no more, whoever is to blame: a wrong index in a kernel does it, too."""
    # by name, since torch is loaded where a stage needs it alone
    named = type(error).__name__ == "AcceleratorError"
    return named or (
        isinstance(error, RuntimeError) and "CUDA" in str(error) and "out of memory" not in str(error)
    )


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
