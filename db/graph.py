"""What the end of one job means for the rest of its graph: counters of unfinished parents, and skipping."""

from typing import Any

from sqlalchemy import bindparam, case, func, literal_column, select, update
from sqlalchemy.orm import Session, aliased

from db.models import OPEN, Base, Job, JobDependency, JobState, in_state

JOBS = Base.metadata.tables["jobs"]
jobs, edges = JOBS.c, Base.metadata.tables["job_dependencies"].c

_CHILDREN = (
    select(jobs.id)
    .where(
        jobs.id.in_(select(edges.child_id).where(edges.parent_id == bindparam("parent"))),
        # skipped ones too: their counters are audited like those of open jobs
        in_state(JobState.WAITING, JobState.SKIPPED, of=jobs),
    )
    # in id order, so that two parents cannot deadlock; SQLite, where one transaction writes at a time, leaves it out
    .order_by(jobs.id)
    .with_for_update()
)
_RELEASE = (
    update(JOBS)
    .where(jobs.id.in_(_CHILDREN))
    .values(
        waiting_for=jobs.waiting_for - 1,
        # 1, not 0: an UPDATE sees the values from before it
        state=case(
            (
                in_state(JobState.WAITING, of=jobs) & (jobs.waiting_for == 1),
                literal_column("'ready'", jobs.state.type),
            ),
            else_=jobs.state,
        ),
    )
    .returning(jobs.state)
)


def release_children(session: Session, job_id: int) -> bool:
    """Tell a job's children that it has succeeded; whether one of them became ready.

    The children's rows stay locked until the transaction ends, and all parents of a child want its row.
    """
    return JobState.READY in session.scalars(_RELEASE, {"parent": job_id}).all()


def skip_descendants(session: Session, job_id: int) -> None:
    """Skip everything that waits for a failed job, at any depth, but not by way of jobs that continue."""
    below = (
        select(JobDependency.child_id.label("id"))
        .where(JobDependency.parent_id == job_id)
        .cte("below", recursive=True)
    )
    # UNION, not UNION ALL: a job that is reached over many paths is followed once
    below = below.union(
        select(JobDependency.child_id)
        .join(below, JobDependency.parent_id == below.c.id)
        .join(Job, Job.id == below.c.id)
        .where(Job.state.in_((JobState.WAITING, JobState.SKIPPED))),
    )
    session.execute(
        update(Job)
        .where(Job.id.in_(select(below.c.id)), Job.state == JobState.WAITING)
        .values(state=JobState.SKIPPED, error=f"skipped: it depends on job {job_id}, which failed")
    )


COUNTED = (*OPEN, JobState.SKIPPED)
"""States in which ``waiting_for`` says how many parents have not succeeded."""


def recount(session: Session, run_id: int) -> int:
    """Rebuild ``waiting_for`` of a run's open and skipped jobs from the graph; returns how many had drifted."""
    # in id order, as release_children locks, so that the two cannot deadlock
    locked = select(Job.id).where(Job.run_id == run_id, Job.state.in_(COUNTED)).order_by(Job.id)
    session.execute(locked.with_for_update()).all()
    found = drifted(session, run_id)
    if found:
        session.execute(update(Job), found)
    # A job that was running when an input failed for good has come back to wait for it.
    for failed in session.scalars(
        select(Job.id).where(Job.run_id == run_id, Job.state == JobState.FAILED)
    ).all():
        skip_descendants(session, failed)
    return len(found)


def drifted(session: Session, run_id: int) -> list[dict[str, Any]]:
    """The jobs whose counter is wrong, each with ``waiting_for`` and ``state`` as they should be.

    Counted here, not in SQL: without statistics for a new table, the database would scan all jobs for each job.
    """
    parent = aliased(Job)
    edges = (
        select(JobDependency.child_id, func.count())
        .join(parent, parent.id == JobDependency.parent_id)
        .where(parent.run_id == run_id, parent.state != JobState.SUCCEEDED)
        .group_by(JobDependency.child_id)
    )
    unfinished = dict(session.execute(edges).all())
    jobs = select(Job.id, Job.state, Job.waiting_for).where(Job.run_id == run_id, Job.state.in_(COUNTED))
    return [
        {"id": job_id, "waiting_for": count, "state": _counted(state, count)}
        for job_id, state, counter in session.execute(jobs.order_by(Job.id))
        # a running attempt goes on even while one of its inputs is made again
        if state != JobState.RUNNING
        and (counter != (count := unfinished.get(job_id, 0)) or _counted(state, count) != state)
    ]


def _counted(state: JobState, unfinished: int) -> JobState:
    """The state of a job in ``state`` with so many unfinished parents."""
    if state == JobState.SKIPPED:
        return state
    if unfinished:
        return JobState.WAITING
    return JobState.READY if state == JobState.WAITING else state
