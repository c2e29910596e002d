"""What a worker process does with the database, without Celery: the verbs that benchmarks call and time."""

import os
import socket
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import benchmarks.noop  # noqa: F401  # installs the stage
from db.claims import claim, claim_next
from db.dispatch import top_up
from db.engine import open_engine, write
from db.jobs import Claim, Outcome, Worker, finish
from db.shares import Turns
from tasks.code import codes

NOTHING = Outcome(file=None, rows={}, peak_memory_bytes=0)


def worker_engine(url: str) -> Engine:
    """Connections as a worker process has them."""
    return open_engine(url, durable=False)


@dataclass
class Hand:
    """One worker process without Celery."""

    engine: Engine
    name: str
    turns: Turns = field(default_factory=Turns)

    @property
    def worker(self) -> Worker:
        """Who claims."""
        return Worker(self.name, socket.gethostname(), os.getpid(), codes())

    def take(self, job_id: int) -> Claim | None:
        """Claim the job that a message names."""
        return write(self.engine, lambda session: claim(session, job_id, self.worker, self.turns))

    def finish(self, held: Claim, *, takes_next: bool) -> tuple[Claim | None, int]:
        """End a job without file and rows, and claim the next one; also returns how many children became ready."""

        def end(session: Session) -> tuple[Claim | None, int]:
            following = claim_next(session, held, self.worker, self.turns) if takes_next else None
            released = finish(session, held, NOTHING)
            assert released is not None, f"job {held.job_id} was fenced out"
            return following, released

        try:
            return write(self.engine, end)
        except IntegrityError:
            # another run claimed the same key at the same moment
            return self.finish(held, takes_next=False)


def queue_jobs(engine: Engine) -> list[int]:
    """Fill the window; returns the jobs to ring for."""
    return [bell.job_id for bell in write(engine, top_up)]
