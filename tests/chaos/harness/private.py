"""A private cluster of links: a supervisor that is held as by `orchestrator up`, and what runs under it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import psutil
from sqlalchemy import Engine, func, select

from db.engine import open_engine, reading
from db.models import Attempt, Job, JobState
from db.schema import upgrade
from harness.failpoints import FOLDER_VARIABLE, KillLog
from harness.graph import Node, submit_graph
from harness.supervisor import LOOK, SWITCHES_VARIABLE
from orchestrator.cluster.leftovers import SUPERVISOR_VARIABLE, Leader, recorded
from orchestrator.cluster.trouble import told
from orchestrator.locks import lock, up_lock

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 150.0
"""A bound for waiting, no measure."""


class PrivateCluster:
    """Starts with ``with``; at its end every process is killed. ``folder`` must be short, since a socket lies in it.

    Leases outlive every test unless told otherwise, so that no lease heals anything.
    """

    def __init__(self, folder: Path, *switches: str, lease_seconds: float = 3000) -> None:
        self.home = folder / "home"
        self.log = folder / "supervisor.log"
        self.switches = switches
        self.lease_seconds = lease_seconds
        self.kills = KillLog(folder / "chaos")
        self.supervisors: list[subprocess.Popen[bytes]] = []
        self._held = ExitStack()

    @cached_property
    def engine(self) -> Engine:
        """The test's own connections."""
        return open_engine(f"sqlite:///{self.home / 'orchestrator.db'}")

    def __enter__(self) -> "PrivateCluster":
        (self.home / "run").mkdir(parents=True, mode=0o700)
        self.kills.make()
        upgrade(self.engine)
        self._held.enter_context(lock(up_lock(self.home)))
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        # the supervisor first, which would start others
        while processes := [*self.supervisors_alive(), *self.processes()]:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=5)
        self._held.close()
        self.engine.dispose()

    def start(self) -> None:
        """Start a supervisor."""
        ours = {
            "ORCHESTRATOR_HOME": str(self.home),
            "ORCHESTRATOR_LEASE_SECONDS": str(self.lease_seconds),
            SWITCHES_VARIABLE: ",".join(self.switches),
            FOLDER_VARIABLE: str(self.kills.folder),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        with self.log.open("ab") as log:
            self.supervisors.append(
                subprocess.Popen(
                    [sys.executable, "-m", "harness.supervisor"],
                    cwd=self.home,
                    env=os.environ | ours,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    @property
    def supervisor(self) -> subprocess.Popen[bytes]:
        """The latest one."""
        return self.supervisors[-1]

    def supervisors_alive(self) -> list[psutil.Process]:
        """Those that have not ended."""
        return [psutil.Process(it.pid) for it in self.supervisors if it.poll() is None]

    def kill_supervisor(self) -> None:
        """``kill -9`` of the supervisor alone."""
        self.supervisor.kill()
        self.supervisor.wait()

    def processes(self) -> list[psutil.Process]:
        """What runs for this home, supervisors included."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            # Valkey overwrites its environment, and runs in the home
            return str(self.home) in (
                process.environ().get("ORCHESTRATOR_HOME"),
                str(Path(process.cwd()).parent),
            )
        except (psutil.Error, OSError):
            return False

    def leader(self, name: str) -> Leader:
        """The recorded group of this name, once its leader runs."""

        def found() -> Leader | None:
            leaders = recorded(self.home / "run" / "processes.json").leaders
            return next((it for it in leaders if it.name == name and it.lives), None)

        return self.wait_for(found, f"a recorded {name}")

    def another(self, leader: Leader) -> Leader:
        """The group that has taken this one's place."""
        self.wait_for(lambda: self.leader(leader.name) != leader, f"another {leader.name}")
        return self.leader(leader.name)

    def wait_for_a_worker(self) -> Leader:
        """A worker that has taken a job before: its parent has started."""
        self.wait_for(
            lambda: len(self._children(self.leader("cpu-worker").pid)) >= self.concurrency, "a pool"
        )
        return self.leader("cpu-worker")

    @property
    def concurrency(self) -> int:
        """Processes of the worker's pool."""
        return os.cpu_count() or 1

    def _children(self, pid: int) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).children()
        return []

    def send(self, leader: Leader, number: signal.Signals) -> None:
        """Signal a leader alone."""
        os.kill(leader.pid, number)

    def submit(self, nodes: Sequence[Node]) -> int:
        """Store a run of these jobs."""
        return submit_graph(self.engine, nodes)

    def states(self) -> dict[JobState, int]:
        """Jobs by state."""
        with reading(self.engine) as session:
            rows = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
        return dict(map(tuple, rows))

    def attempts(self) -> list[tuple[str, str | None]]:
        """(worker, outcome) of all attempts, oldest first."""
        with reading(self.engine) as session:
            rows = session.execute(select(Attempt.worker, Attempt.outcome).order_by(Attempt.started_at)).all()
        return [(worker, outcome) for worker, outcome in rows]

    def charges(self) -> int:
        """Losses and failures of all jobs."""
        with reading(self.engine) as session:
            return session.scalar(select(func.sum(Job.losses + Job.failures))) or 0

    def looks(self) -> int:
        """How often the supervisors have looked for what hangs."""
        return self.logged(LOOK)

    def told(self) -> str:
        """What the cluster says is wrong."""
        return told(self.home)

    def logged(self, text: str) -> int:
        """How often the supervisors have logged this."""
        return self.log.read_text().count(text)

    def marks(self) -> set[str]:
        """Ids of the supervisors that have started what runs."""
        return {mark for it in self.processes() if (mark := it.environ().get(SUPERVISOR_VARIABLE))}

    def wait_for(self, condition: Callable[[], Answer], what: str) -> Answer:
        """Look until ``condition()`` is true and return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not seen: {what}\n{self.states()}\n{self.log.read_text()[-6000:]}")
            time.sleep(0.05)
        return found

    def wait_for_end(self) -> None:
        """Every job has succeeded."""
        self.wait_for(lambda: self.states().keys() == {JobState.SUCCEEDED}, "the end of all jobs")
