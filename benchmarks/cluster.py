"""A shared cluster of real processes for benchmarks: Valkey, a database, one worker and one reconciler."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil
from celery import Celery
from harness.member import Member
from harness.postgres import PostgresServer
from sqlalchemy import Engine

from benchmarks import CHECKOUT
from benchmarks.databases import new_database, server_processes
from benchmarks.noop import TIMES_VARIABLE
from benchmarks.waiting import wait_for
from db.dispatch import top_up
from db.engine import open_engine, write
from orchestrator.cluster.processes import valkey_command, worker_command, worker_environment
from tasks.app import create_app
from tasks.doorbell import ring
from tasks.variables import ARTIFACTS_VARIABLE, BROKER_VARIABLE, DATABASE_VARIABLE


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """What these processes and all they have forked have computed, those that have ended included."""
    used = 0.0
    for process in processes:
        # what a child used that has ended is its parent's
        tree = [process, *process.children(recursive=True)]
        for member in tree:
            try:
                times = member.cpu_times()
            except psutil.NoSuchProcess:
                continue
            used += times.user + times.system + times.children_user + times.children_system
    return used


@dataclass(frozen=True)
class Cluster:
    """Addresses and processes of a running cluster."""

    folder: Path
    database_url: str
    server: PostgresServer | None
    concurrency: int

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        return {
            BROKER_VARIABLE: f"redis+socket://{self.folder / 'valkey.sock'}",
            DATABASE_VARIABLE: self.database_url,
            ARTIFACTS_VARIABLE: (self.folder / "artifacts").as_uri(),
            TIMES_VARIABLE: str(self.times),
            "PYTHONPATH": str(CHECKOUT),
        }

    @property
    def times(self) -> Path:
        """Where no-ops say when they began."""
        return self.folder / "times"

    @cached_property
    def engine(self) -> Engine:
        """The benchmark's own connections."""
        return open_engine(self.database_url)

    @cached_property
    def app(self) -> Celery:
        """The benchmark's own messages."""
        return create_app(self.variables[BROKER_VARIABLE])

    @cached_property
    def valkey(self) -> Member:
        """The broker."""
        return Member("valkey", valkey_command(self.folder / "valkey.sock"), {}, self.folder)

    @cached_property
    def worker(self) -> Member:
        """One Celery worker with a pool of ``concurrency`` processes."""
        command = worker_command("cpu", self.concurrency, "bench@here")
        command[command.index("workers.app")] = "benchmarks.worker"
        environment = {**self.variables, **worker_environment("bench@here")}
        return Member("worker", command, environment, self.folder)

    @cached_property
    def reconciler(self) -> Member:
        """What heals, and queues what finished jobs leave behind."""
        command = [sys.executable, "-m", "benchmarks.command", "reconcile"]
        return Member("reconciler", command, self.variables, self.folder)

    def dispatch(self) -> int:
        """Queue ready jobs and ring for them, as ``submit`` does; returns how many."""
        doorbells = write(self.engine, top_up)
        ring(self.app, doorbells)
        return len(doorbells)

    def cpu_seconds(self) -> dict[str, float]:
        """What each part has computed so far."""
        return {
            "worker": cpu_seconds([psutil.Process(self.worker.process.pid)]),
            "reconciler": cpu_seconds([psutil.Process(self.reconciler.process.pid)]),
            "valkey": cpu_seconds([psutil.Process(self.valkey.process.pid)]),
            "database": cpu_seconds(server_processes(self.server)),
        }


@contextmanager
def running(database: str, concurrency: int = 2) -> Iterator[Cluster]:
    """A cluster that has answered its first message; every process is killed at the end."""
    with ExitStack() as stack:
        url, server = stack.enter_context(new_database(database))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b-")))
        cluster = Cluster(folder, url, server, concurrency)
        for member in (cluster.valkey, cluster.worker, cluster.reconciler):
            stack.callback(member.kill)
            member.start()
        try:
            wait_for(lambda: bool(cluster.app.control.ping(timeout=1)), "a worker")
            yield cluster
        except BaseException:
            for member in (cluster.worker, cluster.reconciler):
                print(f"---- {member.name}\n{member.log.read_text()[-3000:]}", file=sys.stderr)
            raise
        finally:
            cluster.engine.dispose()
            cluster.app.close()
