"""poison: everything that a job should not do."""

import ctypes
import faulthandler
import os
import signal
import sqlite3
import sys
import time
from contextlib import suppress
from pathlib import Path

from harness.failpoints import FOLDER_VARIABLE
from harness.poison import Poison

from db.results.tables import Latency
from tasks.job_io import JobContext, Output
from tasks.variables import DATABASE_VARIABLE

LONG_SECONDS = 900
"""Longer than any test."""


def compute(params: Poison, context: JobContext) -> Output:
    """One line for this execution, then the way."""
    with Path(params.log).open("a") as log:
        log.write(f"{params.name} {os.getpid()}\n")
    return WAYS[params.way]() or Output()


def _raise() -> None:
    raise ValueError("poison\nand a second line")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short


def _memory() -> None:
    bytearray(1 << 60)


def _hang() -> None:
    ctypes.PyDLL(None).sleep(LONG_SECONDS)  # PyDLL keeps the interpreter's lock


def _hang_unwatched() -> None:
    """As ``hang``, with the watchdog called off: no thread has a turn any more to call it back."""
    sys.setswitchinterval(LONG_SECONDS)
    faulthandler.cancel_dump_traceback_later()
    _hang()


def _loop() -> None:
    while True:
        time.sleep(0.01)


def _deaf() -> None:
    time.sleep(LONG_SECONDS)  # no bytecode runs, so no exception is raised in here


def _exit() -> None:
    sys.exit("poison")


def _freeze() -> None:
    """Once in a cluster: stopped within a write transaction on SQLite."""
    with suppress(FileExistsError):
        (Path(os.environ[FOLDER_VARIABLE]) / "frozen").touch(exist_ok=False)
        database = sqlite3.connect(os.environ[DATABASE_VARIABLE].removeprefix("sqlite:///"), timeout=60)
        database.execute("BEGIN IMMEDIATE")
        os.kill(os.getpid(), signal.SIGSTOP)


def _result() -> Output:
    """No poison: the one row that a table of results needs."""
    seconds = {
        f"{part}_seconds": 0.5 for part in ("mean", "p50", "p95", "classifier", "edge", "link", "cloud")
    }
    condition = {"p_tar": 0.8, "policy": "pristine", "kind": "pristine", "level": 0}
    row = {"network": "paris", "payload": "json", "n": 2, "offloaded": 1, **condition, **seconds}
    return Output(rows={Latency: [row]})


WAYS = {
    "raise": _raise,
    "kill": _kill,
    "memory": _memory,
    "hang": _hang,
    "hang-unwatched": _hang_unwatched,
    "loop": _loop,
    "deaf": _deaf,
    "exit": _exit,
    "freeze": _freeze,
    "result": _result,
}
