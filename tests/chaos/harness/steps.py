"""Faults at every step: a warm process that forks one child per point, and the child's counted steps.

A step is an effect on a disk: an SQL statement, a commit and its answer, a file opened for writing, an fsync,
a rename, a removal, a folder made, a text printed. At the step that it is told, the child dies or its disk fails.
``Server`` asks ``python -m harness.operations``, one line of JSON for another.
"""

import errno
import io
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

CRASH, NO_SPACE, IO_ERROR = "crash", "ENOSPC", "EIO"
FAULTS = (CRASH, NO_SPACE, IO_ERROR)
SQL_ERRORS = {NO_SPACE: "database or disk is full", IO_ERROR: "disk I/O error"}
NEEDS_SPACE = ("open", "fsync", "rename", "mkdir")
"""Steps on files that a full disk refuses from the fault on; another disk holds the database."""


@dataclass(frozen=True)
class Order:
    """What a child does, where, and at which step (from 1) what happens to it; at no step without a fault."""

    operation: str
    folder: str
    fault: str | None = None
    at: int = 0


@dataclass
class Steps:
    """Counts the effects of this process."""

    order: Order
    names: list[str] = field(default_factory=list)

    def step(self, name: str, torn: Callable[[], None] = lambda: None) -> None:
        """One more effect is about to happen; ``torn`` leaves the half of it that a fault may leave."""
        self.names.append(name)
        number, at, fault = len(self.names), self.order.at, self.order.fault
        still_full = fault == NO_SPACE and number > at and name in NEEDS_SPACE
        if fault is None or (number != at and not still_full):
            return
        torn()
        if fault == CRASH:
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("sql"):
            raise sqlite3.OperationalError(SQL_ERRORS[fault])
        code = getattr(errno, fault)
        raise OSError(code, os.strerror(code))

    def watch_files(self) -> None:
        """From now on what this process does to files under the order's folder is counted."""
        folder = os.path.join(self.order.folder, "artifacts")
        names = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[2], int):
                name = "open" if arguments[2] & (os.O_WRONLY | os.O_RDWR) else None
            else:
                name = names.get(event)
            if name and os.fsdecode(os.fspath(arguments[0])).startswith(folder):
                self.step(name)

        sync = os.fsync

        def fsync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            regular = stat.S_ISREG(status.st_mode)
            half = lambda: os.truncate(descriptor, status.st_size // 2)  # noqa: E731
            self.step("fsync" if regular else "fsync folder", half if regular else lambda: None)
            sync(descriptor)

        os.fsync = fsync
        sys.addaudithook(audit)

    def watch_database(self, engine: Engine) -> None:
        """From now on this engine's statements and commits are counted."""
        dialect: Any = engine.dialect
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, self._statement(getattr(dialect, name)))
        commit = dialect.do_commit

        def do_commit(connection: Any) -> None:
            self.step("sql COMMIT")
            commit(connection)
            self.step("sql committed")

        dialect.do_commit = do_commit

    def _statement(self, execute: Callable[..., None]) -> Callable[..., None]:
        def call(cursor: Any, statement: str, *arguments: Any, **options: Any) -> None:
            self.step(f"sql {statement.split()[0]}")
            execute(cursor, statement, *arguments, **options)

        return call


class Paper(io.StringIO):
    """A text file that is printed on, step by step."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def write(self, text: str) -> int:
        """Print."""
        self._steps.step("print")
        return super().write(text)


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit status as ``waitpid`` has it, its answer and its steps where it lived."""

    status: int
    answer: Any = None
    names: tuple[str, ...] = ()

    @property
    def crashed(self) -> bool:
        """Whether it was killed."""
        return os.WIFSIGNALED(self.status)

    @property
    def raised(self) -> bool:
        """Whether an error came through."""
        return os.WIFEXITED(self.status) and os.WEXITSTATUS(self.status) == 1


class Server:
    """The warm process, from the asking side; ends with its ``with`` block. ``modules`` are what it loads."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules

    def __enter__(self) -> "Server":
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.operations", *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.stdin.close()

    def do(self, operation: str, folder: Path, fault: str | None = None, at: int = 0) -> Ending:
        """Let a child do one operation in a folder."""
        order = Order(operation, str(folder), fault, at)
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        return Ending(said["status"], said.get("answer"), tuple(said.get("names", ())))
