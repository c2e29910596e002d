"""What must be true of the jobs that a database holds, whenever nothing changes them."""

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from db.models import OPEN, Artifact, Attempt, Job, JobDependency, JobState
from db.results.tables import Temperature
from harness.model import PLANS


def every_job_is_there(session):
    sizes = session.execute(select(Job.run_id, func.count()).group_by(Job.run_id)).all()
    assert {size for _, size in sizes} <= {len(plan) for plan in PLANS}
    parent = aliased(Job)
    hopeless = (
        select(JobDependency.child_id)
        .join(parent, parent.id == JobDependency.parent_id)
        .where(JobDependency.reads, parent.state != JobState.SUCCEEDED)
    )
    unfounded = select(Job.id).where(Job.state == JobState.SKIPPED, Job.id.not_in(hopeless))
    assert session.scalars(unfounded).all() == [], "skipped, and all that it reads is there"


def artifacts_are_there(session):
    """Every success has its artifact, made once with its rows; only one that nothing needs may have none."""
    done = select(Job.key, Artifact.key, Job.cached).outerjoin(Artifact, Artifact.id == Job.artifact_id)
    for wanted, key, cached in session.execute(done.where(Job.state == JobState.SUCCEEDED)):
        assert cached if key is None else key.partition(":")[0] == wanted
    undone = select(Job.id).where(Job.state.in_(OPEN), Job.artifact_id.is_not(None))
    assert session.scalars(undone).all() == []
    rows = (
        select(Artifact.stage, func.count(Temperature.artifact_id))
        .outerjoin(Temperature)
        .group_by(Artifact.id)
    )
    assert {*map(tuple, session.execute(rows))} <= {("step", 0), ("table", 1)}


def attempts_are_closed(session):
    """All but those that run."""
    runs = (Job.id == Attempt.job_id) & (Job.attempt == Attempt.attempt) & (Job.state == JobState.RUNNING)
    unclosed = select(Attempt.job_id).where(Attempt.finished_at.is_(None))
    assert session.scalars(unclosed.outerjoin(Job, runs).where(Job.id.is_(None))).all() == []
    running = select(func.count()).select_from(Job).where(Job.state == JobState.RUNNING)
    assert session.scalar(running) == session.scalar(select(func.count()).select_from(unclosed.subquery()))
