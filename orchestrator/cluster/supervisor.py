"""The private cluster: one supervisor per home folder runs Valkey, the workers and the reconciler.

It ends when no run is active and no ``orchestrator up`` holds it. Every command that follows a run starts it; a
second one finds the lock taken and exits at once.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

import redis

from db.dispatch import forget_rings
from db.engine import open_engine, read, write
from db.recovery import busy_processes, release_processes, release_worker
from db.runs import working_runs
from orchestrator.cluster.client import START_SECONDS
from orchestrator.cluster.hardware import visible_gpus
from orchestrator.cluster.place import Place, current_place, open_store, socket_path
from orchestrator.cluster.processes import (
    children,
    end_leftovers,
    record,
    recorded,
    start,
    stop,
    valkey_command,
    worker_command,
    worker_environment,
)
from orchestrator.cluster.reconcile import ROUND_SECONDS, Reconciler
from orchestrator.errors import InfrastructureError
from orchestrator.locks import is_held, lock, supervisor_lock, up_lock
from tasks.app import create_app
from tasks.code import codes

log = logging.getLogger(__name__)

RESTART_SECONDS = 2.0
EARLY_SECONDS = 10.0
EARLY_ENDS = 5


class Supervisor:
    """One private cluster, from start to end."""

    def __init__(self, place: Place, home: Path) -> None:
        self.place = place
        self.home = home
        self.engine = open_engine(place.database_url)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.started: dict[str, float] = {}
        self.reconciler = Reconciler(self.engine, open_store(place), create_app(place.broker_url))
        self.gpus = visible_gpus()
        self.record = home / "run" / "processes.json"
        self.stopping = False
        self.early_ends = 0

    def run(self) -> None:
        """Supervise until there is nothing left to do or a signal says to stop."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        # before anything is released: an orphan could claim it again
        end_leftovers(recorded(self.record))
        for name in self._worker_names():
            self._release(name, charged=False)
        try:
            while not self.stopping:
                self._start_missing()
                self._release_dead_children()
                self.reconciler.once()
                if not self._has_work() and not is_held(up_lock(self.home)):
                    return
                # more often than a reconciler alone, so that killed processes are noticed and the cluster
                # ends soon
                time.sleep(ROUND_SECONDS / 4)
            log.info("told to stop")
        finally:
            valkey = {name: p for name, p in self.processes.items() if name == "valkey"}
            # the broker last, since workers that end still talk to it
            stop({name: process for name, process in self.processes.items() if name not in valkey})
            for name in self._worker_names():
                self._release(name, charged=False)
            self.reconciler.remove_leftovers()
            stop(valkey)
            self.record.unlink(missing_ok=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _has_work(self) -> bool:
        """Runs of other code do not count: they would keep an idle cluster running forever."""
        return bool(read(self.engine, partial(working_runs, codes=codes())))

    def _worker_names(self) -> list[str]:
        return ["cpu-worker", *(f"gpu-worker-{gpu}" for gpu in self.gpus)]

    def _release(self, name: str, *, charged: bool) -> None:
        """Requeue the jobs of a worker known to be dead at once, without waiting for their leases."""
        node = self._node(name)
        # guarded like every transition: a job that has ended meanwhile is left alone
        released = write(self.engine, lambda session: release_worker(session, node, charged=charged))
        if released:
            log.warning("%d jobs of %s run again", released, name)

    def _release_dead_children(self) -> None:
        """Requeue the jobs of killed children at once: their parent silently forks new ones."""
        for name in self._worker_names():
            process, node = self.processes.get(name), self._node(name)
            # before the processes are listed: a child forked in between would otherwise look dead with its
            # first job
            busy = read(self.engine, partial(busy_processes, worker=node))
            if not busy or process is None:
                continue
            dead = busy - children(process.pid)
            # a worker that has ended as a whole is released when it is restarted
            if not dead or process.poll() is not None:
                continue
            released = write(self.engine, partial(release_processes, worker=node, processes=dead))
            if released:
                log.warning("%d jobs of %s run again: their process was killed", released, name)

    def _node(self, name: str) -> str:
        return f"{name}@{self.home}"

    def _start_missing(self) -> None:
        for name in ("valkey", *self._worker_names()):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                continue
            # longer after each early end, and counted from the start: one that ran for a while is replaced at
            # once
            pause = RESTART_SECONDS * 2**self.early_ends
            if time.monotonic() - self.started.get(name, -pause) < pause:
                continue
            if process is not None:
                log.warning("%s exited with code %s and is restarted", name, process.returncode)
                self._count_early_end(name)
                # its children may have outlived it, and could still finish what is released next
                stop({name: process})
                # The job may have caused a signal; a worker that exits by itself has lost its broker.
                self._release(name, charged=process.returncode < 0)
            self._start(name)

    def _count_early_end(self, name: str) -> None:
        """Give up on a process that keeps ending early."""
        early = time.monotonic() - self.started[name] < EARLY_SECONDS
        self.early_ends = self.early_ends + 1 if early else 0
        if self.early_ends == EARLY_ENDS:
            raise InfrastructureError(f"{name} exits as soon as it starts; see {self.home}/logs/{name}.log.")

    def _start(self, name: str) -> None:
        self.started[name] = time.monotonic()
        if name == "valkey":
            socket = socket_path(self.home)
            # a killed Valkey leaves its socket behind
            socket.unlink(missing_ok=True)
            self.processes[name] = start(name, valkey_command(socket), {}, self.place)
            record(self.record, self.processes)
            self._wait_for_valkey(socket)
            write(self.engine, forget_rings)
            return
        environment = worker_environment(self._node(name))
        queue, concurrency = "cpu", os.cpu_count() or 1
        if name.startswith("gpu"):
            queue, concurrency = "gpu", 1
            environment["CUDA_VISIBLE_DEVICES"] = name.rpartition("-")[2]
        command = worker_command(queue, concurrency, f"{name}@%h")
        self.processes[name] = start(name, command, environment, self.place)
        record(self.record, self.processes)

    def _wait_for_valkey(self, socket: Path) -> None:
        # workers are started only once it answers, or each of them would begin with a failed connection
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.processes["valkey"].poll() is None and not self.stopping:
            try:
                with redis.Redis(unix_socket_path=str(socket)) as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        if not self.stopping:
            raise InfrastructureError(f"Valkey did not start; see {self.home}/logs/valkey.log.")


def main() -> None:
    """The supervisor's process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    place = current_place(create=True)
    assert place.home is not None
    with lock(supervisor_lock(place.home)) as held:
        if held is None:
            return
        # the pid of the holder before
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        # Never closed, so that the lock is released only when the whole process is gone.
        os.dup(held.fileno())
        try:
            Supervisor(place, place.home).run()
        except InfrastructureError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
