"""What the end of one job means for the rest of its graph: counters of unfinished parents, and skipping.

A child that reads its parent waits until it has succeeded; one that only comes after it waits until it has ended,
however. ``waiting_for`` counts both kinds in jobs that wait or were skipped; in all others it says nothing. Rows are
locked in id order, so that two transactions cannot deadlock; SQLite, where one transaction writes at a time, leaves
the locks out.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    String,
    Subquery,
    Update,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.orm import Session, aliased

from db.engine import execute
from db.models import OPEN, Job, JobDependency, JobState, in_state

Edge = JobDependency

_READY, _WAITING, _SKIPPED = (
    literal_column(f"'{state}'", Job.state.type)
    for state in (JobState.READY, JobState.WAITING, JobState.SKIPPED)
)
_COUNTED = in_state(JobState.WAITING, JobState.SKIPPED)


def _in_order(which: ColumnElement[bool]) -> Select[int]:
    return select(Job.id).where(which).order_by(Job.id).with_for_update()


def lock(session: Session, which: ColumnElement[bool]) -> None:
    """Lock jobs in id order, and fetch none of them."""
    execute(session, select(func.count()).select_from(_in_order(which).subquery()))


def _less(count: ColumnElement[int] | int) -> dict[str, ColumnElement[Any]]:
    """``count`` parents less to wait for; an UPDATE sees the values from before it."""
    last = in_state(JobState.WAITING) & (Job.waiting_for == count)
    return {"waiting_for": Job.waiting_for - count, "state": case((last, _READY), else_=Job.state)}


# ---- success ------------------------------------------------------------------------------------------

_children = select(Edge.child_id).where(Edge.parent_id == bindparam("job"))
# read once, whatever the database's plan
_locked = (
    _in_order(Job.id.in_(_children) & _COUNTED & (Job.waiting_for > 0))
    .cte("locked")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_RELEASE = update(Job).where(Job.id.in_(select(_locked.c.id))).values(_less(1)).returning(Job.state)


def release_children(session: Session, job_id: int) -> bool:
    """Tell a job's children that it has succeeded; whether one of them became ready.

    The children's rows stay locked until the transaction ends, and all parents of a child want its row.
    """
    return JobState.READY in execute(session, _RELEASE, job=job_id).scalars().all()


# ---- failure ------------------------------------------------------------------------------------------


def _cone() -> CTE:
    """What waits for a job's result, at any depth, but not by way of jobs that go on or were skipped before."""
    readers = (
        select(Edge.child_id.label("id"))
        .join(Job, Job.id == Edge.child_id)
        .where(Edge.reads, in_state(JobState.WAITING))
    )
    first = readers.where(Edge.parent_id == bindparam("job")).cte("cone", recursive=True)
    # UNION, not UNION ALL: a job that is reached over many paths is followed once
    return first.union(readers.join(first, Edge.parent_id == first.c.id))


def _skipping() -> tuple[Select[int], Update, Update]:
    """Lock what changes, release what comes after the jobs that end here, skip those that wait for a result."""
    cone = _cone()
    ends = union(select(cone.c.id), select(bindparam("ended", type_=Integer)))
    after = select(Edge.child_id).where(~Edge.reads, Edge.parent_id.in_(ends))
    locked = _in_order(Job.id.in_(union(select(cone.c.id), after))).subquery()
    less = after.add_columns(func.count().label("parents")).group_by(Edge.child_id).subquery()
    release = (
        update(Job)
        .where(Job.id == less.c.child_id, _COUNTED, Job.waiting_for >= less.c.parents)
        .values(_less(less.c.parents))
        .returning(Job.state)
    )
    skip = (
        update(Job)
        .where(Job.id.in_(select(cone.c.id)), in_state(JobState.WAITING))
        .values(state=_SKIPPED, error=bindparam("why", type_=String))
    )
    return select(func.count()).select_from(locked), release, skip


_LOCK_CONE, _RELEASE_AFTER, _SKIP = _skipping()


def skip_descendants(session: Session, job_id: int) -> bool:
    """Tell a job's descendants that it has failed: whatever waits for its result, at any depth, is skipped.

    What only came after it, or after a job that is skipped here, waits for that no longer; whether one of those
    became ready.
    """
    return _skip(session, job_id, _why(job_id), ended=job_id)


def _why(job_id: int) -> str:
    return f"skipped: it depends on job {job_id}, which failed"


def _skip(session: Session, job_id: int, why: str, *, ended: int | None) -> bool:
    """``ended`` is the job itself, unless what comes after it knows already."""
    below = {"job": job_id, "ended": ended}
    execute(session, _LOCK_CONE, **below)
    # first, since nothing tells those that are skipped here from others later
    released = execute(session, _RELEASE_AFTER, **below).scalars().all()
    execute(session, _SKIP, job=job_id, why=why)
    return JobState.READY in released


# ---- counting again -----------------------------------------------------------------------------------

_Parent = aliased(Job)
_wanting = in_state(*OPEN, of=_Parent) | (Edge.reads & ~in_state(JobState.SUCCEEDED, of=_Parent))
_hopeless = Edge.reads & in_state(JobState.FAILED, JobState.SKIPPED, of=_Parent)
_unfinished = func.count(case((_wanting, 1)))
_cause = func.min(case((_hopeless, _Parent.id)))
# not running ones: an attempt goes on even while one of its inputs is made again
_STANDING = in_state(JobState.WAITING, JobState.READY, JobState.QUEUED, JobState.SKIPPED)


def _drift(which: ColumnElement[bool]) -> Subquery:
    """Jobs whose counter is wrong, or that wait for a result that will not come: its ``cause``."""
    wrong = (
        Job.waiting_for != _unfinished,
        in_state(JobState.WAITING) & ((_unfinished == 0) | _cause.is_not(None)),
        in_state(JobState.READY, JobState.QUEUED) & (_unfinished > 0),
    )
    return (
        select(Job.id, _unfinished.label("unfinished"), _cause.label("cause"))
        .outerjoin(Edge, Edge.child_id == Job.id)
        .outerjoin(_Parent, _Parent.id == Edge.parent_id)
        .where(which, _STANDING)
        .group_by(Job.id)
        .having(or_(*wrong))
        .subquery()
    )


AUDITED = 5000
"""Jobs that one audit looks at."""


def audit(session: Session, run_id: int, after: int) -> tuple[list[int], int]:
    """Which of a run's next jobs after this number have a wrong counter; and after which to go on, 0 at the end.

    Waits for nobody. Of a large run a part, so that no reconciler's round takes longer than others.
    """
    some = select(Job.id).where(Job.run_id == run_id, Job.id > after).order_by(Job.id).limit(AUDITED)
    last = execute(session, select(func.max(some.subquery().c.id))).scalar()
    if last is None:
        return [], 0
    among = (Job.run_id == run_id) & Job.id.between(after + 1, last)
    return list(execute(session, select(_drift(among).c.id)).scalars()), last


def recount(session: Session, run_id: int) -> int:
    """Rebuild ``waiting_for`` of a run's open and skipped jobs from the graph; returns how many were wrong."""
    return _recount(session, Job.run_id == run_id)


def recount_around(session: Session, job_ids: Collection[int]) -> int:
    """As ``recount``, of these jobs and of their children."""
    return _recount(session, around(job_ids))


def around(job_ids: Collection[int]) -> ColumnElement[bool]:
    """These jobs and their children."""
    children = select(Edge.child_id).where(Edge.parent_id.in_(job_ids))
    return Job.id.in_(union(children, select(Job.id).where(Job.id.in_(job_ids))))


def _recount(session: Session, which: ColumnElement[bool]) -> int:
    lock(session, which & _STANDING)
    drift = _drift(which)
    state = case(
        (in_state(JobState.SKIPPED), Job.state),
        (drift.c.unfinished > 0, _WAITING),
        (in_state(JobState.WAITING), _READY),
        else_=Job.state,
    )
    rebuilt = update(Job).where(Job.id == drift.c.id).values(waiting_for=drift.c.unfinished, state=state)
    wrong = execute(session, rebuilt).rowcount
    if wrong:
        # a job that was running when its input failed for good has come back to wait for it
        causes = select(Job.id, Job.state, Job.error).where(Job.id.in_(select(drift.c.cause)))
        for cause, state, error in execute(session, causes).all():
            _skip(session, cause, error if state == JobState.SKIPPED else _why(cause), ended=None)
    return wrong
