"""What heals a run: lost workers, bad artifacts, counters that drifted."""

from sqlalchemy import ColumnElement, String, case, cast, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.clock import now
from db.jobs import MAX_LOSSES, Claim, JobInput, fail, put_back, settle_run, skip_descendants
from db.models import OPEN, Artifact, Attempt, Job, JobDependency, JobState, Run, RunState

MAX_REPAIRS = 10
"""One job may find this many inputs bad; a worker that never sees a file would go on for ever."""
SET_ASIDE = "input set aside"


def expire(session: Session) -> int:
    """Take back the jobs whose lease has run out, or whose attempt is past its deadline; returns how many."""
    overdue = or_(Job.lease_until < now(), Attempt.started_at + Job.deadline_seconds < now())
    return _take_back(session, overdue, charged=True)


def release_worker(session: Session, worker: str, *, charged: bool) -> int:
    """Take back what a worker held that is surely dead; charged unless its supervisor has ended it."""
    return _take_back(session, Attempt.worker == worker, charged=charged)


def _take_back(session: Session, condition: ColumnElement[bool], *, charged: bool) -> int:
    statement = (
        select(Job.id, Job.run_id, Job.attempt, Job.losses, Attempt.worker)
        .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.attempt == Job.attempt))
        .where(Job.state == JobState.RUNNING, condition)
        .order_by(Job.id)
    )
    taken = 0
    for job_id, run_id, attempt, before, worker in session.execute(statement).all():
        losses = before + charged
        lost = losses >= MAX_LOSSES
        error = f"lost its worker {losses} times, the last time {worker}" if lost else None
        held = (Job.id == job_id, Job.state == JobState.RUNNING, Job.attempt == attempt)
        state = JobState.FAILED if lost else JobState.READY
        values = {"state": state, "lease_until": None, "losses": losses, "error": error}
        if session.execute(update(Job).where(*held).values(values).returning(Job.id)).one_or_none() is None:
            continue
        taken += 1
        session.execute(
            update(Attempt)
            .where(Attempt.job_id == job_id, Attempt.attempt == attempt)
            .values(finished_at=now(), outcome="lost" if charged else "released")
        )
        if lost:
            skip_descendants(session, job_id)
            settle_run(session, run_id)
    return taken


def repair(session: Session, claim: Claim, bad: JobInput) -> bool:
    """A reader found the artifact of its input bad: set it aside and make it again before the reader runs.

    The artifact's row keeps its rows for the runs that have ended, under a key that no job asks for; in every
    active run its job is reopened, with those ancestors that must be there again.
    """
    if _repairs(session, claim.job_id) >= MAX_REPAIRS:
        why = f"the file of its input, job {bad.job_id}, was bad {MAX_REPAIRS + 1} times"
        return fail(session, claim, f"{why}; do all workers see the same artifact store?", "", retry=False)
    if not put_back(session, claim, SET_ASIDE):
        return False
    if bad.artifact_id is not None:
        session.execute(
            update(Artifact)
            .where(Artifact.id == bad.artifact_id, ~Artifact.key.contains(":"))
            .values(key=Artifact.key + ":set-aside-" + cast(Artifact.id, String))
        )
    active = select(Run.id).where(Run.state == RunState.ACTIVE)
    producers = Job.id == bad.job_id
    if bad.artifact_id is not None:
        producers |= Job.artifact_id == bad.artifact_id
    runs: set[int] = set()
    for job_id, run_id in session.execute(
        select(Job.id, Job.run_id).where(producers, Job.run_id.in_(active)).order_by(Job.id)
    ).all():
        _reopen(session, job_id)
        runs.add(run_id)
    for run_id in sorted(runs):
        recount(session, run_id)
    return True


def _repairs(session: Session, job_id: int) -> int:
    repairs = select(func.count()).where(Attempt.job_id == job_id, Attempt.outcome == SET_ASIDE)
    return session.scalar(repairs) or 0


def _reopen(session: Session, job_id: int) -> None:
    """Waiting again, and with it every ancestor that it reads and that has no artifact."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.SUCCEEDED)
        .values(state=JobState.WAITING, artifact_id=None, found=False)
    )
    missing = (
        select(Job.id)
        .join(JobDependency, JobDependency.parent_id == Job.id)
        .where(
            JobDependency.child_id == job_id,
            JobDependency.reads,
            Job.state == JobState.SUCCEEDED,
            Job.artifact_id.is_(None),
        )
    )
    for parent in session.scalars(missing).all():
        _reopen(session, parent)


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


def active_runs(session: Session) -> list[int]:
    """Runs that are not ended, oldest first."""
    return list(session.scalars(select(Run.id).where(Run.state == RunState.ACTIVE).order_by(Run.id)))


def is_dead(session: Session, job_id: int, attempt: int) -> bool:
    """Whether no live attempt can own files of this name any more."""
    alive = exists().where(Job.id == job_id, Job.attempt == attempt, Job.state == JobState.RUNNING)
    return not session.scalar(select(alive))
