"""One command of a cluster as a process group of its own, and the keeper that starts again what has ended."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROUND_SECONDS = 0.1
"""How soon the keeper starts again what has ended; docker waits as long."""


@dataclass
class Member:
    """A process that is started again under the same name; its output goes to ``NAME.log``."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether its leader runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start it, after ending what an earlier start left."""
        self.kill()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1

    def send(self, number: signal.Signals) -> None:
        """Signal its whole group."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """``kill -9`` of its whole group; returns when the leader is gone."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def children(self) -> list[psutil.Process]:
        """The processes that its leader has forked; none while it does not run."""
        if not self.alive:
            return []
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def all(self) -> list[psutil.Process]:
        """Its leader, where it runs, and what that has forked."""
        children = self.children()
        return [psutil.Process(self.process.pid), *children] if children else []


@dataclass
class Keeper:
    """Starts every member again that has ended, from a thread, as ``restart: always`` does."""

    members: list[Member]
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None

    def start(self) -> None:
        """From now on nothing stays ended."""
        self.thread = threading.Thread(target=self._keep, name="keeper")
        self.thread.start()

    def stop(self) -> None:
        """From now on what has ended stays so."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join()

    def _keep(self) -> None:
        while not self.stopped.is_set():
            with self.lock:
                for member in self.members:
                    if not member.alive:
                        member.start()
            time.sleep(ROUND_SECONDS)
