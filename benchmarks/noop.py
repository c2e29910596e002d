"""The stage ``noop``, which does nothing but say when."""

import os
import struct
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tasks.stages
from tasks.job_io import JobContext, Output
from tasks.params import STAGES, StageParams

TIMES_VARIABLE = "BENCHMARK_TIMES"
"""The file to which every no-op appends the time at which it began; without it they do nothing at all."""
MOMENT = struct.Struct("d")
"""Seconds since 1970 by the machine's clock."""


@dataclass(frozen=True)
class NoOp(StageParams):
    """Nothing at all."""

    stage = "noop"
    version = 1
    libraries = ()
    writes_rows = False
    deadline_seconds = 600


def compute(params: NoOp, context: JobContext) -> Output:
    """Neither a file nor rows."""
    tell()
    return Output()


def tell() -> None:
    """Append the time to this process's file."""
    if (path := os.environ.get(TIMES_VARIABLE)) is not None:
        os.write(_opened(path), MOMENT.pack(time.time()))


def told(path: Path) -> list[float]:
    """The times in a file, in the order in which they were appended."""
    return [moment for (moment,) in MOMENT.iter_unpack(path.read_bytes())]


@cache
def _opened(path: str) -> int:
    # appended, so that processes that write at once do not overwrite each other
    return os.open(path, os.O_APPEND | os.O_WRONLY | os.O_CREAT)


def install() -> None:
    """Let this process compute no-ops: this file is the stage's module."""
    STAGES[NoOp.stage] = NoOp
    sys.modules["tasks.stages.noop"] = tasks.stages.noop = sys.modules[__name__]


install()
