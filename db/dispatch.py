"""Which jobs to send messages for: ready ones within a window per run and queue, and those queued for too long.

The caller sends the messages after its commit.
"""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, bindparam, case, func, literal_column, or_, select, update
from sqlalchemy.orm import Session

from db.clock import now
from db.engine import execute
from db.models import Job, JobState, Run, in_state, is_active, is_computed
from db.shares import ALL_STAGES, ActiveRun, active_shares, of_run, room

WINDOW = 64
"""Messages of a run that may wait in a queue; the rest waits in SQL. Of a run of less weight fewer, in proportion."""
LEAST_WINDOW = 4
FIRST = 2
"""A run with fewer messages waiting than this goes before all others."""
QUEUES = ("cpu", "gpu")
MOST_RINGS = 4
"""A job is rung for so often with a pause that doubles, then after the same pause every time."""


@dataclass(frozen=True)
class Doorbell:
    """What a message carries: look at this job."""

    job_id: int
    run_id: int
    stage: str
    label: str
    queue: str
    code: str
    first: bool = False
    """Whether it goes before all other messages."""


_DOORBELL = (Job.id, Job.run_id, Job.stage, Job.label, Job.queue, Job.code)
_QUEUED = (
    select(Job.run_id, Job.queue, func.count())
    .where(in_state(JobState.QUEUED))
    .group_by(Job.run_id, Job.queue)
)
_chosen = (
    select(Job.id)
    .where(
        *of_run(Job),
        Job.queue == bindparam("of_queue"),
        in_state(JobState.READY),
        Job.stage.not_in(bindparam("full_stages", expanding=True)),
        or_(Job.not_before.is_(None), Job.not_before <= now()),
        # another run's attempt computes it: its result will be there
        ~is_computed(),
    )
    .order_by(Job.run_id, Job.id)
    .limit(bindparam("room"))
    # two dispatchers at once each take their own; waiting for each other crosswise, they would deadlock
    .with_for_update(skip_locked=True, of=Job)
)


def _ring(chosen: Select[Any], **values: Any) -> Any:
    # read once, whatever the database's plan: a second look would lock other rows
    ids = chosen.cte("chosen").prefix_with("MATERIALIZED", dialect="postgresql")
    return (
        update(Job)
        .where(Job.id.in_(select(ids.c.id)))
        .values(dispatched_at=now(), **values)
        .returning(*_DOORBELL)
    )


_TOP_UP = _ring(_chosen, state=JobState.QUEUED, rings=1)


def top_up(session: Session) -> list[Doorbell]:
    """Queue ready jobs of every active run, up to its window."""
    runs = active_shares(session)
    if not runs:
        return []
    heaviest = max(run.priority for run in runs)
    waiting = {(run, queue): count for run, queue, count in execute(session, _QUEUED)}
    bells = []
    for run in runs:
        window = max(LEAST_WINDOW, WINDOW * run.priority // heaviest)
        for queue in QUEUES:
            already = waiting.get((run.id, queue), 0)
            # two dispatchers at once may overshoot the window a little: it only bounds the broker's queue
            if already < window:
                bells += _queue(session, run, queue, already, window - already)
    return bells


def _queue(session: Session, run: ActiveRun, queue: str, already: int, free: int) -> list[Doorbell]:
    left = room(session, run, queued=True)
    chosen = {
        "run": run.id,
        "of_queue": queue,
        "full_stages": [stage for stage, more in left.items() if stage != ALL_STAGES and more == 0],
        "room": min(free, left.get(ALL_STAGES, free)),
    }
    # RETURNING promises no order, and messages should go out as the plan has it
    rows = sorted(execute(session, _TOP_UP, **chosen), key=lambda row: row.id)
    return [replace(Doorbell(*row), first=already + place < FIRST) for place, row in enumerate(rows)]


def forget_rings(session: Session) -> None:
    """The broker is new and empty: every queued job becomes ready again."""
    # a job whose message a worker took just before is claimed all the same, ready or queued
    session.execute(update(Job).where(in_state(JobState.QUEUED)).values(state=JobState.READY))


_SILENT = (
    select(Job.id)
    .join(Run, Run.id == Job.run_id)
    .where(
        in_state(JobState.QUEUED),
        # the run is active: of others nobody takes the jobs
        is_active(),
        # 1, 2, 4, … times the pause: a job whose message waits behind long ones must not fill the broker
        Job.dispatched_at < now() - bindparam("pause") * literal_column("1").op("<<")(Job.rings - 1),
    )
    # not by the column itself, in whose order SQLite would rather read all jobs
    .order_by(Job.id + literal_column("0"))
)
_RING_AGAIN = _ring(
    _SILENT.with_for_update(skip_locked=True, of=Job),
    rings=case((Job.rings < MOST_RINGS, Job.rings + 1), else_=Job.rings),
)


def ring_again(session: Session, after_seconds: float) -> list[Doorbell]:
    """Jobs whose message was sent ``after_seconds`` ago and may be lost; twice as long ago at every further time."""
    return sorted(
        (Doorbell(*row) for row in execute(session, _RING_AGAIN, pause=after_seconds)),
        key=lambda bell: bell.job_id,
    )


def has_silent(session: Session, after_seconds: float) -> bool:
    """Whether ``ring_again`` has something to do; it writes nothing."""
    return execute(session, _SILENT.limit(1), pause=after_seconds).first() is not None
