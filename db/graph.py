"""What the end of one job means for the rest of its graph: counters of unfinished parents, and skipping.

A child that reads its parent waits until it has succeeded; one that only comes after it waits until it has ended,
however. ``waiting_for`` counts both kinds in jobs that wait or were skipped; in all others it says nothing.
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
from sqlalchemy.orm import Session

from db.models import OPEN, Base, JobState, in_state

JOBS = Base.metadata.tables["jobs"]
EDGES = Base.metadata.tables["job_dependencies"]
jobs, edges = JOBS.c, EDGES.c

_counted = in_state(JobState.WAITING, JobState.SKIPPED, of=jobs)
_waits = in_state(JobState.WAITING, of=jobs)


def _in_order(which: ColumnElement[bool]) -> Select[int]:
    """Jobs, locked in id order, so that two transactions cannot deadlock.

    SQLite, where one transaction writes at a time, leaves the lock out.
    """
    return select(jobs.id).where(which).order_by(jobs.id).with_for_update()


def lock(session: Session, which: ColumnElement[bool]) -> None:
    """Lock jobs in id order, so that two transactions cannot deadlock, and fetch none of them."""
    session.execute(select(func.count()).select_from(_in_order(which).subquery()))


def _less(count: ColumnElement[int] | int) -> dict[str, ColumnElement[Any]]:
    """``count`` parents less to wait for; an UPDATE sees the values from before it."""
    ready = literal_column("'ready'", jobs.state.type)
    return {
        "waiting_for": jobs.waiting_for - count,
        "state": case((_waits & (jobs.waiting_for == count), ready), else_=jobs.state),
    }


# ---- success ------------------------------------------------------------------------------------------

_children = select(edges.child_id).where(edges.parent_id == bindparam("job"))
_RELEASE = (
    update(JOBS)
    .where(jobs.id.in_(_in_order(jobs.id.in_(_children) & _counted & (jobs.waiting_for > 0))))
    .values(_less(1))
    .returning(jobs.state)
)


def release_children(session: Session, job_id: int) -> bool:
    """Tell a job's children that it has succeeded; whether one of them became ready.

    The children's rows stay locked until the transaction ends, and all parents of a child want its row.
    """
    return JobState.READY in session.scalars(_RELEASE, {"job": job_id}).all()


# ---- failure ------------------------------------------------------------------------------------------


def _cone() -> CTE:
    """What waits for a job's result, at any depth, but not by way of jobs that continue or were skipped before."""
    readers = (
        select(edges.child_id.label("id")).join(JOBS, jobs.id == edges.child_id).where(edges.reads, _waits)
    )
    first = readers.where(edges.parent_id == bindparam("job")).cte("cone", recursive=True)
    # UNION, not UNION ALL: a job that is reached over many paths is followed once
    return first.union(readers.join(first, edges.parent_id == first.c.id))


def _skipping() -> tuple[Select[int], Update, Update]:
    """Lock what changes, release what comes after the jobs that end here, skip those that wait for a result."""
    cone = _cone()
    # ``ended``, and all that is skipped
    ends = union(select(cone.c.id), select(bindparam("ended", type_=Integer)))
    after = select(edges.child_id).where(~edges.reads, edges.parent_id.in_(ends))
    locked = _in_order(jobs.id.in_(union(select(cone.c.id), after))).subquery()
    counts = after.add_columns(func.count().label("ended")).group_by(edges.child_id).subquery()
    release = (
        update(JOBS)
        .where(jobs.id == counts.c.child_id, _counted, jobs.waiting_for >= counts.c.ended)
        .values(_less(counts.c.ended))
        .returning(jobs.state)
    )
    skipped = literal_column("'skipped'", jobs.state.type)
    skip = (
        update(JOBS)
        .where(jobs.id.in_(select(cone.c.id)), _waits)
        .values(state=skipped, error=bindparam("why", type_=String))
    )
    return select(func.count()).select_from(locked), release, skip


_LOCK, _RELEASE_AFTER, _SKIP = _skipping()


def skip_descendants(session: Session, job_id: int) -> bool:
    """Tell a job's descendants that it has failed: whatever waits for its result, at any depth, is skipped.

    What only came after the failed job or a skipped one waits for it no longer; whether one of those became ready.
    """
    return _skip(session, {"job": job_id, "ended": job_id, "why": _why(job_id)})


def _why(job_id: int) -> str:
    return f"skipped: it depends on job {job_id}, which failed"


def _skip(session: Session, values: dict[str, Any]) -> bool:
    session.execute(_LOCK, values)
    # before their parents are skipped, since afterwards nothing tells these from those that were skipped before
    released = session.scalars(_RELEASE_AFTER, values).all()
    session.execute(_SKIP, values)
    return JobState.READY in released


# ---- counting again -----------------------------------------------------------------------------------

PARENTS = JOBS.alias("parents")
parents = PARENTS.c
_wanting = edges.reads & (parents.state != literal_column("'succeeded'"))
_hopeless = edges.reads & in_state(JobState.FAILED, JobState.SKIPPED, of=parents)
_unfinished = func.count(case((in_state(*OPEN, of=parents) | _wanting, 1)))
_cause = func.min(case((_hopeless, parents.id)))
_settled = in_state(JobState.WAITING, JobState.READY, JobState.QUEUED, JobState.SKIPPED, of=jobs)
"""A running attempt goes on even while one of its inputs is made again."""


def _drift(which: ColumnElement[bool]) -> Subquery:
    """Jobs whose counter is wrong, or that wait for what will not come: what it should be, and a ``cause``."""
    wrong = (
        jobs.waiting_for != _unfinished,
        _waits & ((_unfinished == 0) | (_cause.is_not(None))),
        in_state(JobState.READY, JobState.QUEUED, of=jobs) & (_unfinished > 0),
    )
    return (
        select(jobs.id, jobs.state, _unfinished.label("unfinished"), _cause.label("cause"))
        .outerjoin_from(JOBS, EDGES, edges.child_id == jobs.id)
        .outerjoin(PARENTS, parents.id == edges.parent_id)
        .where(which, _settled)
        .group_by(jobs.id)
        .having(or_(*wrong))
        .subquery()
    )


def drifted(session: Session, run_id: int) -> list[int]:
    """The jobs of a run whose counter is wrong; waits for nobody."""
    return list(session.scalars(select(_drift(jobs.run_id == run_id).c.id)))


def recount(session: Session, run_id: int) -> int:
    """Rebuild ``waiting_for`` of a run's open and skipped jobs from the graph; returns how many were wrong."""
    return _recount(session, jobs.run_id == run_id)


def recount_around(session: Session, job_ids: Collection[int]) -> int:
    """As ``recount``, of these jobs and of their children."""
    children = select(edges.child_id).where(edges.parent_id.in_(job_ids))
    return _recount(session, jobs.id.in_(children.union(select(jobs.id).where(jobs.id.in_(job_ids)))))


def _recount(session: Session, which: ColumnElement[bool]) -> int:
    lock(session, which & _settled)
    drift = _drift(which)
    ready, waiting = (literal_column(f"'{state}'", jobs.state.type) for state in ("ready", "waiting"))
    state = case(
        (in_state(JobState.SKIPPED, of=jobs), jobs.state),
        (drift.c.unfinished > 0, waiting),
        (_waits, ready),
        else_=jobs.state,
    )
    rebuild = update(JOBS).where(jobs.id == drift.c.id).values(waiting_for=drift.c.unfinished, state=state)
    wrong = session.connection().execute(rebuild).rowcount
    if wrong:
        # a job that was running when its input failed for good has come back to wait for it
        causes = select(jobs.id, jobs.state, jobs.error).where(jobs.id.in_(select(drift.c.cause)))
        for cause, state, error in session.execute(causes).all():
            _skip(
                session,
                {"job": cause, "ended": None, "why": error if state == JobState.SKIPPED else _why(cause)},
            )
    return wrong
