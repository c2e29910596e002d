"""What keeps a cluster moving, round by round; any number of these may run."""

import logging
import time
from dataclasses import dataclass
from functools import partial

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.dispatch import QUEUES, Doorbell, has_silent, ring_again, top_up
from db.engine import reading, write
from db.jobs import settle_run
from db.recovery import active_runs, expire, is_dead, recount
from tasks.doorbell import ring, waiting_messages

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
RING_AGAIN_SECONDS = 10.0
"""A queued job whose message may be lost is rung again after this long, once its queue is empty."""
AUDIT_ROUNDS = 15


@dataclass
class Reconciler:
    """Rings for ready jobs, takes back expired leases, audits counters, removes dead attempts' files."""

    engine: Engine
    store: ArtifactStore
    app: Celery
    rounds: int = 0

    def once(self) -> list[int]:
        """One round; returns the runs that are still active."""
        expired = write(self.engine, expire)
        if expired:
            log.warning("%d jobs lost their worker and run again", expired)
        self._ring(write(self.engine, top_up))
        self._ring_again()
        if self.rounds % AUDIT_ROUNDS == 0:
            self._audit()
        self.rounds += 1
        with reading(self.engine) as session:
            return active_runs(session)

    def forever(self) -> None:
        """Rounds until the process is told to stop."""
        while True:
            self.once()
            time.sleep(ROUND_SECONDS)

    def _ring(self, doorbells: list[Doorbell]) -> None:
        if doorbells:
            ring(self.app, doorbells)

    def _ring_again(self) -> None:
        for queue in QUEUES:
            with reading(self.engine) as session:
                silent = has_silent(session, queue, RING_AGAIN_SECONDS)
            if silent and waiting_messages(self.app, queue) == 0:
                again = partial(ring_again, queue=queue, after_seconds=RING_AGAIN_SECONDS)
                self._ring(write(self.engine, again))

    def _audit(self) -> None:
        def audit(session: Session) -> int:
            runs = active_runs(session)
            drifted = sum(recount(session, run_id) for run_id in runs)
            for run_id in runs:
                settle_run(session, run_id)
            return drifted

        drifted = write(self.engine, audit)
        if drifted:
            log.warning("%d counters had drifted and were rebuilt", drifted)
        for job_id, attempt, path in self.store.temporary_files():
            with reading(self.engine) as session:
                dead = is_dead(session, job_id, attempt)
            if dead:
                path.unlink(missing_ok=True)
