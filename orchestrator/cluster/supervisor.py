"""The private cluster: one supervisor per home folder runs Valkey, the workers and the reconciler.

It ends when no run is active and no ``orchestrator up`` holds it. Every command that follows a run starts it; a
second one finds the lock taken and exits at once. What ends or hangs is started again, without an end.
"""

import logging
import math
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

from db.dispatch import forget_rings
from db.engine import open_engine, read, write
from db.errors import StorageError
from db.limits import LEASE_SECONDS
from db.recovery import busy_workers, release_processes, release_worker
from db.runs import active_runs, working_runs
from orchestrator.cluster.changes import Changes
from orchestrator.cluster.hardware import visible_gpus
from orchestrator.cluster.health import LOOK_SECONDS, Broker, Hearing, lock_holders
from orchestrator.cluster.leftovers import end_leftovers, recorded
from orchestrator.cluster.members import Member, Members
from orchestrator.cluster.place import Place, current_place, open_store, socket_path
from orchestrator.cluster.processes import is_child
from orchestrator.cluster.reconcile import ROUND_SECONDS, TROUBLES, Reconciler, in_a_line
from orchestrator.cluster.trouble import tell
from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.locks import is_held, lock, supervisor_lock, up_lock
from tasks.app import create_app
from tasks.code import codes

log = logging.getLogger(__name__)

FAULTS = (*TROUBLES, InfrastructureError)
"""What the next round may find gone: a database that does not answer, a full disk, a Valkey that does not start."""


class Supervisor:
    """One private cluster, from start to end."""

    def __init__(self, place: Place, home: Path) -> None:
        self.home = home
        self.engine = open_engine(place.database_url)
        self.database = home / "orchestrator.db"
        self.app = create_app(place.broker_url)
        self.reconciler = Reconciler(self.engine, open_store(place), self.app)
        self.members = Members(place, home, visible_gpus())
        self.broker = Broker(socket_path(home))
        self.hearings: dict[str, Hearing] = {}
        self.changes = Changes(self.database)
        self.charged: set[str] = set()
        """Nodes that a signal ended: a job may have caused it."""
        self.active: list[int] = []
        self.working: list[int] = []
        self.busy: dict[str, set[int]] = {}
        self.reconcile_at = self.look_at = 0.0
        self.told: str | None = None
        self.locked_since = math.inf
        self.stopping = False

    def run(self) -> None:
        """Supervise until there is nothing left to do or a signal says to stop."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        # before anything is released: an orphan could claim it again
        end_leftovers(recorded(self.members.record_path))
        try:
            while not self.stopping and self._round():
                # more often than the reconciler, so that killed processes are noticed and the cluster ends soon
                time.sleep(ROUND_SECONDS / 4)
            log.info("stopped" if self.stopping else "nothing left to do")
        finally:
            self._close()

    def _close(self) -> None:
        # the broker last, since workers that end still talk to it
        self.members.stop(*self.members.workers)
        try:
            self._look()
            self._release_the_gone()
            self.reconciler.remove_leftovers()
        except FAULTS as error:
            log.warning("left to the next supervisor: %s", error)
        self.members.stop(self.members.valkey)
        self.members.record_path.unlink(missing_ok=True)
        tell(self.home, "")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _round(self) -> bool:
        """One round, whatever goes wrong in it; returns whether another one is wanted."""
        steps = (self._start_missing, self.members.record, self._end_what_hangs, self._move_on)
        faults = [fault for step in steps if (fault := self._attempt(step))]
        trouble = next(iter(faults), self.members.trouble)
        if trouble != self.told:
            tell(self.home, trouble)
            self.told = trouble
        return bool(faults or self.working or is_held(up_lock(self.home)))

    def _attempt(self, step: Callable[[], None]) -> str:
        """Take one step of a round; returns what went wrong, in one line. The next round takes it again."""
        began = time.monotonic()
        try:
            step()
        except FAULTS as error:
            fault = in_a_line(error)
            log.warning("%s", fault)
            if _is_locked(error):
                self._free_the_database(began)
            return fault
        return ""

    # ---- members ----------------------------------------------------------------------------------------

    def _start_missing(self) -> None:
        for member, code in self.members.collect_ended():
            log.warning("%s exited with code %s and is started again", member.name, code)
            # a worker that exits by itself has lost its broker
            if code < 0:
                self.charged.add(member.node)
        for member in self.members:
            if not member.runs and member.backoff.is_due:
                self._start(member)
            if member is self.members.valkey and not member.runs:
                return

    def _start(self, member: Member) -> None:
        self.members.start(member)
        # at once: what is not recorded may outlive this process if it is killed; on a full disk it is tried again
        with suppress(OSError):
            self.members.record()
        if member.is_worker:
            self.hearings[member.name] = Hearing(self.app, member.celery_name)
            return
        self.broker = Broker(self.broker.socket)
        self.members.wait_for_valkey(lambda: self.stopping)
        write(self.engine, forget_rings)

    def _end_what_hangs(self) -> None:
        """End a member that is there and does nothing; the next round starts another one."""
        if time.monotonic() < self.look_at:
            return
        self.look_at = time.monotonic() + LOOK_SECONDS
        if self.members.valkey.runs and self.broker.hangs({worker.queue for worker in self.members.workers}):
            self._end(self.members.valkey, "does not answer")
        for worker in self.members.workers:
            hearing, heads = self.hearings.get(worker.name), self.broker.heads.get(worker.queue, {})
            if worker.runs and hearing and hearing.is_lost(heads, partial(self._has_idle, worker)):
                self._end(worker, "leaves its messages where they are")

    def _has_idle(self, worker: Member) -> bool:
        return len(self.busy.get(worker.node, ())) < worker.concurrency

    def _free_the_database(self, locked_since: float) -> None:
        """End a worker of which a process has been in one write transaction for longer than a lease."""
        self.locked_since = min(self.locked_since, locked_since)
        if time.monotonic() - self.locked_since < LEASE_SECONDS:
            return
        groups = {it.name: it.process.pid for it in self.members.workers if it.process is not None}
        holders = lock_holders(self.database, groups)
        for worker in self.members.workers:
            if worker.name in holders:
                self._end(worker, "holds the database's write lock")

    def _end(self, member: Member, why: str) -> None:
        log.warning("%s %s and is ended", member.name, why)
        self.members.kill(member)

    # ---- jobs -------------------------------------------------------------------------------------------

    def _move_on(self) -> None:
        """What jobs need: those of dead processes run again, and the reconciler's round."""
        before = self.active
        if self.changes.any():
            self._look()
        released = self._release_the_gone() + self._release_dead_children()
        if not self.active:
            # nothing runs, so that no lease ends while the reconciler rests
            self.reconciler.last_round = time.time()
        elif released or self.active != before or time.monotonic() >= self.reconcile_at:
            self.reconcile_at = time.monotonic() + ROUND_SECONDS
            self.reconciler.once()
        # whoever had the write lock has given it up
        self.locked_since = math.inf

    def _look(self) -> None:
        self.active = read(self.engine, active_runs)
        # runs of other code do not count: they would keep an idle cluster running forever
        self.working = read(self.engine, partial(working_runs, codes=codes())) if self.active else []
        self.busy = read(self.engine, busy_workers)
        self.changes.seen()

    def _release_the_gone(self) -> int:
        """Requeue the jobs of workers of this home that do not run, without waiting for their leases."""
        gone = {node for node in self.busy if self.members.is_ours(node)} - self.members.nodes
        return sum(self._release(node) for node in gone)

    def _release(self, node: str) -> int:
        # guarded like every transition: a job that has ended meanwhile is left alone
        release = partial(release_worker, worker=node, charged=node in self.charged)
        released = write(self.engine, release)
        log.warning("%d jobs of %s run again", released, node)
        del self.busy[node]
        return released

    def _release_dead_children(self) -> int:
        """Requeue the jobs of killed children at once: their parent silently forks new ones."""
        released = 0
        for worker in self.members.workers:
            busy = self.busy.get(worker.node, set())
            dead = {child for child in busy if worker.process and not is_child(child, worker.process.pid)}
            # a worker that has ended as a whole is released when that is noticed
            if not dead or not worker.runs:
                continue
            released += write(self.engine, partial(release_processes, worker=worker.node, processes=dead))
            log.warning("%d jobs of %s run again: their process was killed", released, worker.name)
            busy -= dead
        return released


def _is_locked(error: BaseException) -> bool:
    """Whether SQLite refused a transaction because another one holds the lock."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    original = getattr(cause, "orig", None)
    return isinstance(original, sqlite3.Error) and original.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


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
        except (OrchestratorError, StorageError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
