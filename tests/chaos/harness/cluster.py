"""A shared cluster of real commands: Valkey, a database, workers and reconcilers, each a process group of its own."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil
import redis
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.dispatch import QUEUES
from db.engine import open_engine, reading
from db.models import OPEN, Attempt, Job, JobState, Run, RunState
from db.schema import upgrade
from harness.failpoints import CHILD, FOLDER_VARIABLE, WORKER, KillLog
from harness.member import Keeper, Member
from harness.postgres import PostgresServer
from orchestrator.processes import valkey_command, worker_command, worker_environment
from orchestrator.reconcile import Reconciler
from tasks.app import ARTIFACTS_VARIABLE, BROKER_VARIABLE, DATABASE_VARIABLE, create_app

Answer = TypeVar("Answer")

PROGRAM = Path(sys.executable).parent / "orchestrator"
LOOK_SECONDS = 0.05
STALLED_SECONDS = 180.0
"""A bound for waiting, no measure: nothing at all has happened for this long."""


@dataclass(frozen=True)
class Sizes:
    """How many processes a cluster has, and the limits that its workers and reconcilers are given."""

    workers: int = 2
    concurrency: int = 2
    reconcilers: int = 1
    """None for a control: nothing heals."""
    lease_seconds: float = 3
    losses: int = 1000
    """What is killed on purpose is no poison."""

    @property
    def limits(self) -> dict[str, str]:
        """As environment variables."""
        return {
            "ORCHESTRATOR_LEASE_SECONDS": str(self.lease_seconds),
            "ORCHESTRATOR_MAX_LOSSES": str(self.losses),
        }


@dataclass
class Cluster:
    """Starts with ``with``; at its end every process is killed, whatever happened.

    ``folder`` must be short, since Valkey's socket lies in it. ``server`` is a Postgres of the cluster's own
    that runs already; without one the database is a SQLite file.
    """

    folder: Path
    server: PostgresServer | None = None
    sizes: Sizes = field(default_factory=Sizes)
    kept: bool = True
    """Whether what has died is started again."""

    # ---- addresses --------------------------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        """Its database."""
        return self.server.url("postgres") if self.server else f"sqlite:///{self.folder / 'database.sqlite'}"

    @property
    def socket(self) -> Path:
        """Where Valkey listens."""
        return self.folder / "valkey.sock"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its commands."""
        return {
            BROKER_VARIABLE: f"redis+socket://{self.socket}",
            DATABASE_VARIABLE: self.database_url,
            ARTIFACTS_VARIABLE: (self.folder / "artifacts").as_uri(),
            FOLDER_VARIABLE: str(self.kills.folder),
            **self.sizes.limits,
        }

    @cached_property
    def engine(self) -> Engine:
        """The harness's own connections."""
        return open_engine(self.database_url)

    @cached_property
    def store(self) -> ArtifactStore:
        """Where its artifacts lie."""
        return ArtifactStore(str(self.folder / "artifacts"))

    @cached_property
    def kills(self) -> KillLog:
        """What was killed, and what is armed."""
        return KillLog(self.folder / "chaos")

    # ---- processes --------------------------------------------------------------------------------------

    @cached_property
    def valkey(self) -> Member:
        """The broker, which keeps nothing."""
        return Member("valkey", valkey_command(self.socket), {}, self.folder)

    @cached_property
    def workers(self) -> list[Member]:
        """Celery workers, each with its pool of processes."""
        return [self._worker(f"worker-{number}") for number in range(self.sizes.workers)]

    @cached_property
    def reconcilers(self) -> list[Member]:
        """What heals."""
        command = [str(PROGRAM), "reconcile"]
        return [
            Member(f"reconciler-{number}", command, self.variables, self.folder)
            for number in range(self.sizes.reconcilers)
        ]

    @cached_property
    def keeper(self) -> Keeper:
        """Of all members; hold its ``lock`` to keep one from being started again meanwhile."""
        return Keeper([self.valkey, *self.reconcilers, *self.workers])

    def _worker(self, name: str) -> Member:
        command = worker_command(",".join(QUEUES), self.sizes.concurrency, f"{name}@chaos")
        command[command.index("workers.app")] = "harness.worker"
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **self.variables,
            **worker_environment(name),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }
        return Member(name, command, environment, self.folder)

    def __enter__(self) -> "Cluster":
        self.kills.make()
        upgrade(self.engine)
        for member in self.keeper.members:
            member.start()
        if self.kept:
            self.keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.keeper.stop()
        for member in self.keeper.members:
            member.kill()
        self.engine.dispose()

    def command(self, *arguments: Any, seconds: float = 400) -> subprocess.CompletedProcess[str]:
        """Run ``orchestrator`` to its end on this cluster."""
        return subprocess.run(
            [PROGRAM, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=os.environ | self.variables,
            timeout=seconds,
            check=False,
        )

    # ---- disturbing it ----------------------------------------------------------------------------------

    def kill_worker(self, rng: random.Random) -> None:
        """``kill -9`` of a worker and its pool."""
        self._kill_member(rng.choice(self.workers), WORKER)

    def kill_child(self, rng: random.Random) -> None:
        """``kill -9`` of one process of a worker's pool, the parent lives on."""
        worker = rng.choice([worker for worker in self.workers if worker.children()] or self.workers)
        children = worker.children()
        if children:
            child = rng.choice(children)
            self.kills.write(CHILD, worker.name, child.pid)
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def kill_reconciler(self, rng: random.Random) -> None:
        """``kill -9`` of a reconciler."""
        self._kill_member(rng.choice(self.reconcilers), "reconciler")

    def kill_valkey(self) -> None:
        """``kill -9`` of Valkey: every message is gone."""
        self._kill_member(self.valkey, "valkey")

    def restart_database(self) -> None:
        """Stop Postgres as a crash does and start it again."""
        self.stop_database()
        self.start_database()

    def stop_database(self) -> None:
        """Stop Postgres as a crash does."""
        assert self.server is not None, "SQLite has no server"
        self.kills.write("postgres")
        self.server.stop()

    def start_database(self) -> None:
        """Start Postgres, which replays its log."""
        assert self.server is not None, "SQLite has no server"
        self.server.start()

    def freeze(self, member: Member) -> None:
        """SIGSTOP its group: it is there and does nothing."""
        member.send(signal.SIGSTOP)

    def thaw(self, member: Member) -> None:
        """SIGCONT its group."""
        member.send(signal.SIGCONT)

    def _kill_member(self, member: Member, kind: str) -> None:
        with self.keeper.lock:
            self.kills.write(kind, member.name)
            member.kill()

    # ---- looking at it ----------------------------------------------------------------------------------

    def ask(self, function: Callable[[Session], Answer]) -> Answer:
        """``function(session)`` of a reading session, asked again while the database is away."""
        deadline = time.monotonic() + STALLED_SECONDS
        while True:
            try:
                with reading(self.engine) as session:
                    return function(session)
            except DBAPIError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_SECONDS)

    def states(self) -> dict[JobState, int]:
        """Jobs of all runs by state."""
        statement = select(Job.state, func.count()).group_by(Job.state)
        return dict(map(tuple, self.ask(lambda session: session.execute(statement).all())))

    def finished(self) -> int:
        """How many jobs of all runs have ended."""
        return sum(count for state, count in self.states().items() if state not in OPEN)

    def attempts(self) -> int:
        """How many attempts were made."""
        return self.ask(lambda session: session.scalar(select(func.count()).select_from(Attempt)))

    def is_active(self) -> bool:
        """Whether a run has not ended."""
        statement = select(func.count()).where(Run.state == RunState.ACTIVE)
        return self.ask(lambda session: session.scalar(statement)) > 0

    def messages(self, queue: str = "cpu") -> int:
        """Doorbells that wait in Valkey; none while it is away."""
        with suppress(redis.ConnectionError):
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                return client.llen(queue)
        return 0

    def wait_for(self, condition: Callable[[], Answer], what: str) -> Answer:
        """Look until ``condition()`` is true and return it; fail where nothing moves for minutes."""
        seen, deadline = None, time.monotonic() + STALLED_SECONDS
        while not (found := condition()):
            now = (self.states(), self.attempts())
            if now != seen:
                seen, deadline = now, time.monotonic() + STALLED_SECONDS
            assert time.monotonic() < deadline, f"stalled before: {what}\n{now}\n{self.logs()}"
            time.sleep(LOOK_SECONDS)
        return found

    def wait_until_idle(self) -> None:
        """Look until no message waits and every worker says twice, nothing having changed, that it has no job.

        Without a reconciler nothing can happen from then on: only a job's end rings for another.
        """
        before = None
        while True:
            now = (self.states(), self.attempts(), self._busy())
            if now == before and now[2] == 0:
                return
            before = now

    def _busy(self) -> int:
        """Messages that wait or that a worker holds; one more for every worker that does not answer."""
        with create_app(self.variables[BROKER_VARIABLE]) as app:
            held = self.messages()
            inspect = app.control.inspect(timeout=1.0)
            for answers in (inspect.active() or {}, inspect.reserved() or {}):
                held += len(self.workers) - len(answers) + sum(map(len, answers.values()))
        return held

    def reconcile_once(self) -> None:
        """One round of a reconciler that has just started, in this process."""
        with create_app(self.variables[BROKER_VARIABLE]) as app:
            Reconciler(self.engine, self.store, app).once()

    def logs(self, characters: int = 2000) -> str:
        """The end of every member's output."""
        return "\n".join(
            f"---- {member.name}, started {member.starts} times\n{member.log.read_text()[-characters:]}"
            for member in self.keeper.members
            if member.log.exists()
        )
