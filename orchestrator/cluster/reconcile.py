"""The reconciler, which keeps a cluster moving round by round; any number of them may run."""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.dispatch import Doorbell, has_silent, ring_again, top_up
from db.engine import read, write
from db.errors import StorageError
from db.graph import audit, recount
from db.limits import LEASE_SECONDS
from db.recovery import expire, has_artifact, is_dead
from db.runs import active_runs, settle_run, torn_runs
from tasks.app import create_app
from tasks.doorbell import ring

Result = TypeVar("Result")

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
RING_AGAIN_SECONDS = 10.0
"""A queued job whose message may be lost is rung for again after this long, and after twice as long each time."""
AUDIT_ROUNDS = 15

TROUBLES = (StorageError, SQLAlchemyError, CeleryError, KombuError, RedisError, OSError)
"""What goes wrong outside this code, and may pass."""


@dataclass
class Reconciler:
    """Queues ready jobs, takes back expired leases, audits counters, and removes files of dead attempts."""

    engine: Engine
    store: ArtifactStore
    app: Celery
    rounds: int = 0
    audited: dict[int, int] = field(default_factory=dict)
    """By active run the last job whose counter was looked at."""
    # wall time, since on Linux the monotonic clock stands still while the machine sleeps
    last_round: float = field(default_factory=time.time)
    lenient_until: float = 0.0

    def once(self) -> None:
        """One round."""
        # the pause between rounds is no gap: counted as one, short leases would never run out
        self._forgive(self.last_round + ROUND_SECONDS)
        began = time.time()

        # the gap is looked for inside: the wait for this very transaction may have been one
        def take_back(session: Session) -> int:
            self._forgive(began)
            return 0 if self._is_lenient() else expire(session)

        if expired := write(self.engine, take_back):
            log.warning("%d jobs lost their worker or outlived their deadline", expired)
        # already here: what goes wrong further on is no gap, and must not keep leases from expiring
        self.last_round = time.time()
        self.rounds += 1
        self._database(write, _settle)
        self._ring(self._database(write, top_up))
        self._ring_again()
        if self.rounds % AUDIT_ROUNDS == 1:
            self._audit()
        self.last_round = time.time()

    def forever(self) -> None:
        """Run rounds until the process is told to stop, whatever database, broker and files do meanwhile."""
        told: set[str] = set()
        while True:
            try:
                self.once()
            except TROUBLES as error:
                # the same trouble comes back every second
                if (trouble := in_a_line(error)) not in told:
                    log.warning("waiting: %s", trouble)
                    told.add(trouble)
            else:
                if told:
                    log.warning("waiting no longer")
                told.clear()
            time.sleep(ROUND_SECONDS)

    def _forgive(self, since: float) -> None:
        """After a gap (database unreachable, machine asleep) workers have one lease's time to renew."""
        if time.time() - since > LEASE_SECONDS / 2:
            self.lenient_until = time.time() + LEASE_SECONDS

    def _is_lenient(self) -> bool:
        # The upper bound ends it if the clock is set back.
        return time.time() < self.lenient_until <= time.time() + LEASE_SECONDS

    def _database(
        self,
        transaction: Callable[[Engine, Callable[[Session], Result]], Result],
        function: Callable[[Session], Result],
    ) -> Result:
        began = time.time()
        result = transaction(self.engine, function)
        self._forgive(began)
        return result

    def _ring(self, doorbells: list[Doorbell]) -> None:
        if doorbells:
            ring(self.app, doorbells)

    def _ring_again(self) -> None:
        # a read first, so that a quiet round takes no write lock
        if self._database(read, partial(has_silent, after_seconds=RING_AGAIN_SECONDS)):
            self._ring(self._database(write, partial(ring_again, after_seconds=RING_AGAIN_SECONDS)))

    def _audit(self) -> None:
        self._audit_counters()
        if torn := self._database(read, torn_runs):
            log.error("runs %s have ended and some of their jobs have not: orchestrator retry", torn)
        self.remove_leftovers()

    def _audit_counters(self) -> None:
        """Look at some jobs of every active run, and next time at those that follow."""
        before, self.audited = self.audited, {}
        for run_id in self._database(read, active_runs):
            after = before.get(run_id, 0)
            # reading takes no locks; another reconciler may have rebuilt the counters since
            wrong, self.audited[run_id] = self._database(read, partial(audit, run_id=run_id, after=after))
            if wrong and (rebuilt := self._database(write, partial(recount, run_id=run_id))):
                log.warning("%d counters had drifted and were rebuilt", rebuilt)

    def remove_leftovers(self) -> None:
        """Delete temporary files of dead attempts and checkpoints of finished trainings."""
        for job_id, attempt, path in self.store.temporary_files():
            # looked up after the listing: an attempt that is dead stays so, since its number never comes back
            if read(self.engine, partial(is_dead, job_id=job_id, attempt=attempt)):
                _delete(path)
        for key, path in self.store.checkpoint_files():
            # a worker that was killed between its commit and the deletion leaves one
            if read(self.engine, partial(has_artifact, key=key)):
                _delete(path)


def in_a_line(error: BaseException) -> str:
    """What went wrong."""
    # of the database's own errors without the statement, whose values differ from round to round
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0] or type(error).__name__


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s stays: %s", path, error.strerror)


def _settle(session: Session) -> None:
    for run_id in active_runs(session):
        settle_run(session, run_id)


def reconcile_forever(engine: Engine, store: ArtifactStore, broker_url: str) -> None:
    """Run the reconciler as its own process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # A closed broker connection then raises instead of ending the process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    Reconciler(engine, store, create_app(broker_url)).forever()
