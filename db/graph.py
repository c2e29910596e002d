"""What one job's end means for the others of its graph: counters of what is waited for, and skipping."""

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.models import OPEN, Job, JobDependency, JobState


def release_children(session: Session, job_id: int) -> None:
    """Count one parent less; children are locked in id order, so that two parents cannot deadlock."""
    children = select(JobDependency.child_id).where(JobDependency.parent_id == job_id)
    session.execute(select(Job.id).where(Job.id.in_(children)).order_by(Job.id).with_for_update()).all()
    session.execute(
        update(Job)
        .where(Job.id.in_(children), Job.state.in_((JobState.WAITING, JobState.SKIPPED)))
        .values(
            waiting_for=Job.waiting_for - 1,
            state=case(
                ((Job.waiting_for == 1) & (Job.state == JobState.WAITING), JobState.READY.value),
                else_=Job.state,
            ),
        )
    )


def skip_descendants(session: Session, job_id: int) -> None:
    """Everything that waits for a failed job, however far below, is skipped; not by way of what goes on."""
    below = (
        select(JobDependency.child_id.label("id"))
        .where(JobDependency.parent_id == job_id)
        .cte("below", recursive=True)
    )
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


def recount(session: Session, run_id: int) -> int:
    """Rebuild ``waiting_for`` of a run's open and skipped jobs from the graph; returns how many had drifted."""
    counted = (*OPEN, JobState.SKIPPED)
    locked = select(Job.id).where(Job.run_id == run_id, Job.state.in_(counted)).order_by(Job.id)
    session.execute(locked.with_for_update()).all()
    parent = aliased(Job)
    unfinished = (
        select(func.count())
        .select_from(JobDependency)
        .join(parent, parent.id == JobDependency.parent_id)
        .where(JobDependency.child_id == Job.id, parent.state != JobState.SUCCEEDED)
        .scalar_subquery()
    )
    state = case(
        ((Job.state == JobState.WAITING) & (unfinished == 0), JobState.READY.value),
        (Job.state.in_((JobState.READY, JobState.QUEUED)) & (unfinished > 0), JobState.WAITING.value),
        else_=Job.state,
    )
    drifted = or_(Job.waiting_for != unfinished, (Job.state == JobState.WAITING) & (unfinished == 0))
    statement = (
        update(Job)
        .where(
            Job.run_id == run_id,
            Job.state.in_(counted),
            Job.state != JobState.RUNNING,
            drifted,
        )
        .values(waiting_for=unfinished, state=state)
        .returning(Job.id)
    )
    drifted_jobs = len(session.execute(statement).all())
    # A job that was running when an input failed for good has come back to wait for it.
    for failed in session.scalars(
        select(Job.id).where(Job.run_id == run_id, Job.state == JobState.FAILED)
    ).all():
        skip_descendants(session, failed)
    return drifted_jobs
