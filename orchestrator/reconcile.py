"""What keeps a cluster moving, round by round; any number of these may run."""

import logging
import time
from dataclasses import dataclass, field
from functools import partial

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.dispatch import QUEUES, Doorbell, has_silent, ring_again, top_up
from db.engine import Unreachable, read, write
from db.graph import recount
from db.limits import LEASE_SECONDS
from db.recovery import expire, has_artifact, is_dead
from db.runs import active_runs, settle_run
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
    last_round: float = field(default_factory=time.time)
    lenient_until: float = 0.0

    def once(self) -> None:
        """One round."""
        if self._may_expire() and (expired := write(self.engine, expire)):
            log.warning("%d jobs lost their worker or outlived their deadline", expired)
        self._ring(write(self.engine, top_up))
        self._ring_again()
        if self.rounds % AUDIT_ROUNDS == 0:
            self._audit()
        self.rounds += 1

    def forever(self) -> None:
        """Rounds until the process is told to stop; a database that is away is waited for."""
        while True:
            try:
                self.once()
            except Unreachable as error:
                log.warning("waiting: %s", error)
            time.sleep(ROUND_SECONDS)

    def _may_expire(self) -> bool:
        """After a gap (the database was away, the machine asleep) the living have one lease's time to renew."""
        before, self.last_round = self.last_round, time.time()
        if self.last_round - before > ROUND_SECONDS + LEASE_SECONDS / 2:
            self.lenient_until = self.last_round + LEASE_SECONDS
        return self.last_round >= self.lenient_until

    def _ring(self, doorbells: list[Doorbell]) -> None:
        if doorbells:
            ring(self.app, doorbells)

    def _ring_again(self) -> None:
        for queue in QUEUES:
            silent = read(self.engine, partial(has_silent, queue=queue, after_seconds=RING_AGAIN_SECONDS))
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
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Delete the temporary files of dead attempts and the checkpoints of what is finished."""
        for job_id, attempt, path in self.store.temporary_files():
            if read(self.engine, partial(is_dead, job_id=job_id, attempt=attempt)):
                path.unlink(missing_ok=True)
        for key, path in self.store.checkpoint_files():
            if read(self.engine, partial(has_artifact, key=key)):
                path.unlink(missing_ok=True)
