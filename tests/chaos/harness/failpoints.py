"""Named points of a worker's code at which it dies, once each time one is armed.

A harness arms a point by making a file; the worker that passes the point and deletes the file writes down what
it is about to do and kills itself or its whole group. Nothing of this is in the product.
"""

import json
import os
import signal
import stat
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

import tasks.job_task
from tasks.variables import WORKER_VARIABLE

FOLDER_VARIABLE = "CHAOS_FOLDER"
SPARED_VARIABLE = "CHAOS_SPARED"
"""Set for a worker of which only single processes may die."""
FILE_POINTS = ("mid-write", "after-rename")
POINTS = ("after-claim", *FILE_POINTS, "before-commit", "after-commit")
CHILD, WORKER = "child", "worker"
"""Who dies: the process that passes the point, or its worker's whole group."""


@dataclass(frozen=True)
class Kill:
    """What was killed and when; ``process`` is None where a whole worker was."""

    kind: str
    time: float
    worker: str | None = None
    process: int | None = None


@dataclass(frozen=True)
class KillLog:
    """The kills of a storm, one line each, written before they happen; and the points that are armed."""

    folder: Path

    def make(self) -> None:
        """Its folder and its file."""
        self.armed.mkdir(parents=True)
        self.path.touch()

    @property
    def armed(self) -> Path:
        """A file here is a point that has not been passed yet."""
        return self.folder / "armed"

    @property
    def path(self) -> Path:
        """The file of lines."""
        return self.folder / "kills"

    def write(self, kind: str, worker: str | None = None, process: int | None = None) -> None:
        """One line, written atomically."""
        line = json.dumps(asdict(Kill(kind, time.time(), worker, process))) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def read(self) -> list[Kill]:
        """All kills, oldest first."""
        return [Kill(**json.loads(line)) for line in self.path.read_text().splitlines()]

    def arm(self, point: str, victim: str) -> None:
        """The next worker that passes ``point`` dies there."""
        assert point in POINTS, point
        (self.armed / f"{point}.{victim}.{uuid.uuid4().hex}").touch()

    def take(self, point: str) -> str | None:
        """Who must die at this passing of ``point``; None where it is not armed, or another was faster."""
        for name in sorted(os.listdir(self.armed)):
            if name.startswith(point):
                try:
                    (self.armed / name).unlink()
                except FileNotFoundError:
                    continue
                return name.split(".")[1]
        return None


def install() -> None:
    """Wrap what the points lie in; called in a worker's parent, before it forks."""
    kills = KillLog(Path(os.environ[FOLDER_VARIABLE]))

    def passes(point: str, before: Callable[[], None] = lambda: None) -> None:
        victim = kills.take(point)
        if victim is None:
            return
        before()
        worker, process = os.environ[WORKER_VARIABLE], os.getpid()
        alone = victim == CHILD or SPARED_VARIABLE in os.environ
        kills.write(point, worker, process if alone else None)
        if not alone:
            os.killpg(0, signal.SIGKILL)
        os.kill(process, signal.SIGKILL)

    _around_files(passes)
    _around_transactions(passes)


def _around_files(passes: Callable[..., None]) -> None:
    sync, rename = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tmp"):
            passes("mid-write", lambda: os.truncate(descriptor, status.st_size // 2))
        sync(descriptor)

    def replace(source: Any, target: Any, **options: Any) -> None:
        rename(source, target, **options)
        if os.fspath(source).endswith(".tmp"):
            passes("after-rename")

    os.fsync, os.replace = fsync, replace


def _around_transactions(passes: Callable[..., None]) -> None:
    """A session remembers that it claims or finishes a job; its commit is then one of the points."""

    def remembered(name: str) -> None:
        function = getattr(tasks.job_task, name)

        def call(session: Session, *arguments: Any, **options: Any) -> Any:
            answer = function(session, *arguments, **options)
            if answer:
                session.info["transition"] = name
            return answer

        setattr(tasks.job_task, name, call)

    def before(session: Session) -> None:
        if session.info.get("transition") == "finish":
            passes("before-commit")

    def after(session: Session) -> None:
        transition = session.info.pop("transition", None)
        if transition is not None:
            passes("after-claim" if transition == "claim" else "after-commit")

    remembered("claim")
    remembered("finish")
    event.listen(Session, "before_commit", before)
    event.listen(Session, "after_commit", after)
