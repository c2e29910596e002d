"""A shared cluster of real commands: Valkey, a database, workers and reconcilers, each a process group of its own."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil
import redis
from kombu.exceptions import OperationalError
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.dispatch import QUEUES, top_up
from db.engine import open_engine, reading, write
from db.models import OPEN, Attempt, Job, JobState, Run, RunState
from db.schema import upgrade
from harness.failpoints import CHILD, FOLDER_VARIABLE, SPARED_VARIABLE, WORKER, KillLog
from harness.graph import Node, submit_graph
from harness.member import Keeper, Member
from harness.postgres import PostgresServer
from orchestrator.cluster.processes import valkey_command, worker_command, worker_environment
from orchestrator.cluster.reconcile import Reconciler
from tasks.app import create_app
from tasks.doorbell import ring
from tasks.variables import ARTIFACTS_VARIABLE, BROKER_VARIABLE, DATABASE_VARIABLE

Answer = TypeVar("Answer")

PROGRAM = Path(sys.executable).parent / "orchestrator"
LOOK_SECONDS = 0.1
STALLED_SECONDS = 180.0
"""A bound for waiting, no measure: no job was begun or finished for this long."""
STALL_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Sizes:
    """How many processes a cluster has, and the limits that its workers and reconcilers are given."""

    workers: int = 2
    concurrency: int = 2
    spared: int = 0
    """So many workers, from the first, lose processes of their pool and never their parent."""
    reconcilers: int = 1
    """None for a control: nothing heals."""
    lease_seconds: float = 3
    losses: int = 1000
    """What is killed on purpose is no poison."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables of every process; ``harness.controls`` says which ones workers know."""

    @property
    def limits(self) -> dict[str, str]:
        """As environment variables."""
        return {
            "ORCHESTRATOR_LEASE_SECONDS": str(self.lease_seconds),
            "ORCHESTRATOR_MAX_LOSSES": str(self.losses),
            **self.environment,
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
    commands: list[Member] = field(default_factory=list)
    """Those that ``begin`` has started."""

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
        workers = [self._worker(f"worker-{number}") for number in range(self.sizes.workers)]
        for worker in workers[: self.sizes.spared]:
            worker.environment = {**worker.environment, SPARED_VARIABLE: "1"}
        return workers

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

    @property
    def _python_path(self) -> str:
        """Where the harness is found, and what this process was told."""
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        return os.pathsep.join(path for path in paths if path)

    def _worker(self, name: str) -> Member:
        command = worker_command(",".join(QUEUES), self.sizes.concurrency, f"{name}@chaos")
        command[command.index("workers.app")] = "harness.worker"
        environment = {
            **self.variables,
            **worker_environment(name),
            "PYTHONPATH": self._python_path,
        }
        return Member(name, command, environment, self.folder)

    def add_worker(self, name: str, **variables: str) -> Member:
        """Start one more worker, with these variables in its environment."""
        worker = self._worker(name)
        worker.environment = {**worker.environment, **variables}
        with self.keeper.lock:
            worker.start()
            self.workers.append(worker)
            self.keeper.members.append(worker)
        return worker

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
        for member in (*self.keeper.members, *self.commands):
            member.kill()
        self.engine.dispose()

    def command(self, *arguments: Any, seconds: float = 400) -> subprocess.CompletedProcess[str]:
        """Run ``orchestrator`` to its end on this cluster."""
        return subprocess.run(
            [sys.executable, "-m", "harness.command", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=os.environ | self.variables | {"PYTHONPATH": self._python_path},
            timeout=seconds,
            check=False,
        )

    def begin(self, *arguments: Any) -> Member:
        """Start ``orchestrator`` on this cluster; it is killed at the end, and not started again."""
        name = f"{arguments[0]}-{len(self.commands)}"
        command = Member(name, [str(PROGRAM), *map(str, arguments)], self.variables, self.folder)
        self.commands.append(command)
        command.start()
        return command

    def submit(self, nodes: Sequence[Node]) -> int:
        """Store a run of these jobs and ring for the first of them, as ``orchestrator submit`` does."""
        run_id = submit_graph(self.engine, nodes)
        with create_app(self.variables[BROKER_VARIABLE]) as app:
            ring(app, write(self.engine, top_up))
        return run_id

    # ---- disturbing it ----------------------------------------------------------------------------------

    def kill_worker(self, rng: random.Random) -> None:
        """``kill -9`` of a worker and its pool, once there is one that has a pool."""
        mortal = self.workers[self.sizes.spared :]
        self._kill_member(rng.choice(self._with_pools(mortal))[0], WORKER)

    def kill_child(self, rng: random.Random) -> None:
        """``kill -9`` of one process of a worker's pool, the parent lives on."""
        worker, pool = rng.choice(self._with_pools(self.workers))
        child = rng.choice(pool)
        self.kills.write(CHILD, worker.name, child.pid)
        with suppress(psutil.NoSuchProcess):
            child.kill()

    def _with_pools(self, workers: Sequence[Member]) -> list[tuple[Member, list[psutil.Process]]]:
        def pools() -> list[tuple[Member, list[psutil.Process]]]:
            return [(worker, pool) for worker in workers if (pool := worker.children())]

        return self.wait_for(pools, "a worker with a pool")

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

    def newest_run(self) -> int | None:
        """The run that was stored last."""
        return self.ask(lambda session: session.scalar(select(func.max(Run.id))))

    def attempts(self) -> int:
        """How many attempts were made."""
        return self.ask(lambda session: session.scalar(select(func.count()).select_from(Attempt)))

    def is_active(self) -> bool:
        """Whether a run has not ended."""
        statement = select(func.count()).where(Run.state == RunState.ACTIVE)
        return self.ask(lambda session: session.scalar(statement)) > 0

    def messages(self) -> int:
        """Doorbells that wait in Valkey, for any code and of any priority; none while it is away."""
        with suppress(redis.ConnectionError):
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                return sum(map(client.llen, client.keys("cpu.*")))
        return 0

    def wait_for(self, condition: Callable[[], Answer], what: str) -> Answer:
        """Look until ``condition()`` is true and return it; fail where no job moves for minutes."""
        seen, since, looked = None, time.monotonic(), 0.0
        while not (found := condition()):
            if time.monotonic() - looked > STALL_LOOK_SECONDS:
                now, looked = self._progress(), time.monotonic()
                if now != seen:
                    seen, since = now, looked
                assert looked - since < STALLED_SECONDS, f"stalled before: {what}\n{now}\n{self.logs()}"
            time.sleep(LOOK_SECONDS)
        return found

    def wait_for_end(self) -> None:
        """Look until every run has ended."""
        self.wait_for(lambda: not self.is_active(), "the end of all runs")

    def is_stuck(self) -> bool:
        """Whether nothing will happen any more, were there no reconciler.

        No message waits, no process that holds a job is alive, every worker says that it has nothing to do, and
        meanwhile nothing has changed: only the end of a job rings for another.
        """
        before = self._progress()
        quiet = self.messages() == 0 and not self._computing()
        return quiet and self._held_by_workers() == 0 and self.messages() == 0 and before == self._progress()

    def _progress(self) -> tuple[dict[JobState, int], int]:
        return self.states(), self.attempts()

    def _computing(self) -> bool:
        running = (Job.id == Attempt.job_id) & (Job.attempt == Attempt.attempt)
        statement = select(Attempt.process).join(Job, running).where(Job.state == JobState.RUNNING)
        return any(map(psutil.pid_exists, self.ask(lambda session: session.scalars(statement).all())))

    def _held_by_workers(self) -> int:
        """Messages that workers say they hold; one more for every worker that does not answer."""
        with create_app(self.variables[BROKER_VARIABLE]) as app:
            inspect = app.control.inspect(timeout=1.0)
            try:
                answers = [inspect.active() or {}, inspect.reserved() or {}]
            except (OperationalError, OSError, redis.RedisError):
                return len(self.workers)
        return sum(len(self.workers) - len(said) + sum(map(len, said.values())) for said in answers)

    def reconcile_once(self) -> None:
        """One round of a reconciler that has just started, in this process."""
        with create_app(self.variables[BROKER_VARIABLE]) as app:
            Reconciler(self.engine, self.store, app).once()

    def logs(self, characters: int = 2000) -> str:
        """The end of every member's output."""
        return "\n".join(
            f"---- {member.name}, started {member.starts} times\n{member.log.read_text()[-characters:]}"
            for member in (*self.keeper.members, *self.commands)
            if member.log.exists()
        )
