"""Which jobs to send messages for: ready ones within a bounded window per queue, and those queued for too long."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from db.clock import now
from db.models import Job, JobState, Run, RunState

WINDOW = 64
"""Messages per queue that may wait in the broker, and as many for other code; the rest waits in SQL."""
QUEUES = ("cpu", "gpu")


@dataclass(frozen=True)
class Doorbell:
    """What a message carries: look at this job."""

    job_id: int
    run_id: int
    stage: str
    label: str
    queue: str


_DOORBELL = (Job.id, Job.run_id, Job.stage, Job.label, Job.queue)


def top_up(session: Session, codes: Collection[str]) -> list[Doorbell]:
    """Queue ready jobs, oldest run first, up to each queue's window; send their messages after the commit.

    Jobs whose code is in ``codes``, which the caller's cluster runs, have a window of their own: the others may
    wait forever.
    """
    return [
        doorbell
        for queue in QUEUES
        for ours in (Job.code.in_(codes), Job.code.not_in(codes))
        for doorbell in _queue(session, queue, ours)
    ]


def _queue(session: Session, queue: str, ours: ColumnElement[bool]) -> list[Doorbell]:
    # two dispatchers at once may overshoot the window a little: it only bounds the broker's queue
    queued = select(func.count()).where(Job.queue == queue, Job.state == JobState.QUEUED, ours)
    room = WINDOW - (session.scalar(queued) or 0)
    if room <= 0:
        return []
    chosen = (
        select(Job.id)
        .join(Run, Run.id == Job.run_id)
        .where(
            Job.queue == queue,
            Job.state == JobState.READY,
            ours,
            # a run that was cancelled or has failed sends nothing more
            Run.state == RunState.ACTIVE,
            or_(Job.not_before.is_(None), Job.not_before <= now()),
        )
        # the oldest run first, so that a new one does not slow down one that is nearly done
        .order_by(Job.run_id, Job.id)
        .limit(room)
    )
    statement = (
        update(Job)
        # the state once more: on Postgres another dispatcher may have queued some since the subquery looked
        .where(Job.id.in_(chosen), Job.state == JobState.READY)
        .values(state=JobState.QUEUED, dispatched_at=now())
        .returning(*_DOORBELL)
    )
    # RETURNING promises no order, and messages should go out as the plan has it
    return sorted((Doorbell(*row) for row in session.execute(statement)), key=lambda bell: bell.job_id)


def forget_rings(session: Session) -> None:
    """The broker is new and empty: every queued job becomes ready again."""
    # a job whose message a worker took just before is claimed all the same, ready or queued
    session.execute(update(Job).where(Job.state == JobState.QUEUED).values(state=JobState.READY))


def ring_again(session: Session, queue: str, after_seconds: float) -> list[Doorbell]:
    """Jobs of a queue whose message was sent more than ``after_seconds`` ago and may be lost."""
    statement = (
        update(Job).where(*_silent(queue, after_seconds)).values(dispatched_at=now()).returning(*_DOORBELL)
    )
    return sorted((Doorbell(*row) for row in session.execute(statement)), key=lambda bell: bell.job_id)


def has_silent(session: Session, queue: str, after_seconds: float) -> bool:
    """Whether a job of the queue is unclaimed ``after_seconds`` after its message was sent."""
    silent = select(Job.id).where(*_silent(queue, after_seconds)).limit(1)
    return session.scalar(silent) is not None


def _silent(queue: str, after_seconds: float) -> tuple[ColumnElement[bool], ...]:
    return (Job.queue == queue, Job.state == JobState.QUEUED, Job.dispatched_at < now() - after_seconds)
