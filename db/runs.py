"""Transitions of whole runs: ended, cancelled, retried; and their progress."""

from collections.abc import Collection

from sqlalchemy import case, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from db.clock import now
from db.graph import recount
from db.models import OPEN, Attempt, Job, JobState, Run, RunState

RETRIED = (JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED)
"""What a retry brings back."""


def active_runs(session: Session) -> list[int]:
    """Runs that have not ended, oldest first."""
    return list(session.scalars(select(Run.id).where(Run.state == RunState.ACTIVE).order_by(Run.id)))


def working_runs(session: Session, codes: Collection[str]) -> list[int]:
    """Active runs with an unfinished job that this code computes, oldest first."""
    unfinished = exists().where(Job.run_id == Run.id, Job.state.in_(OPEN), Job.code.in_(codes))
    return list(
        session.scalars(select(Run.id).where(Run.state == RunState.ACTIVE, unfinished).order_by(Run.id))
    )


def other_codes(session: Session, run_id: int, codes: Collection[str]) -> list[str]:
    """The code that a run's unfinished jobs need and that is not among ``codes``."""
    statement = (
        select(Job.code)
        .where(Job.run_id == run_id, Job.state.in_((*OPEN, *RETRIED)), Job.code.not_in(codes))
        .group_by(Job.code)
        .order_by(func.min(Job.id))
    )
    return list(session.scalars(statement))


def settle_run(session: Session, run_id: int) -> None:
    """End a run whose jobs have all ended.

    If only running jobs are left, the run is locked first: of the last two that finish at the same time, the
    second then sees that the first has ended. On Postgres a failure that skips the last waiting jobs may still
    miss a concurrent finish; the reconciler checks again in every round.
    """
    coming = exists().where(Job.run_id == run_id, Job.state.in_(OPEN), Job.state != JobState.RUNNING)
    # the usual case, and it takes no lock: most jobs end while others are still to come
    if session.scalar(select(coming)):
        return
    # key_share: no stronger than the update below, so that foreign keys to the run can be checked
    session.execute(select(Run.id).where(Run.id == run_id).with_for_update(key_share=True)).all()
    unfinished = aliased(Job)
    failed = aliased(Job)
    session.execute(
        update(Run)
        .where(
            Run.id == run_id,
            Run.state == RunState.ACTIVE,
            ~exists().where(unfinished.run_id == run_id, unfinished.state.in_(OPEN)),
        )
        .values(
            state=case(
                (
                    exists().where(failed.run_id == run_id, failed.state != JobState.SUCCEEDED),
                    RunState.FAILED.value,
                ),
                else_=RunState.SUCCEEDED.value,
            ),
            finished_at=now(),
        )
    )


def progress(session: Session, run_id: int) -> dict[str, dict[JobState, int]]:
    """Jobs by stage and state."""
    counts: dict[str, dict[JobState, int]] = {}
    statement = (
        select(Job.stage, Job.state, func.count())
        .where(Job.run_id == run_id)
        .group_by(Job.stage, Job.state)
        .order_by(func.min(Job.id))
    )
    for stage, state, count in session.execute(statement):
        counts.setdefault(stage, {})[state] = count
    return counts


def cancel(session: Session, run_id: int) -> int | None:
    """End an active run: whatever is not finished is cancelled, running attempts are fenced out at once.

    Returns how many jobs were cancelled, None where the run was not active. What was finished stays.
    """
    active = (Run.id == run_id, Run.state == RunState.ACTIVE)
    ended = update(Run).where(*active).values(state=RunState.CANCELLED, finished_at=now())
    # the run's row decides: of two commands that cancel at once, one finds it ended
    if session.execute(ended.returning(Run.id)).one_or_none() is None:
        return None
    unfinished = (Job.run_id == run_id, Job.state.in_(OPEN))
    # locked before the attempts are closed, or a claim in between would leave an attempt open
    session.execute(select(Job.id).where(*unfinished).order_by(Job.id).with_for_update()).all()
    running = select(Job.id).where(Job.run_id == run_id, Job.state == JobState.RUNNING)
    session.execute(
        update(Attempt)
        .where(Attempt.job_id.in_(running), Attempt.finished_at.is_(None))
        .values(finished_at=now(), outcome="cancelled")
    )
    cancelled = (
        update(Job).where(*unfinished).values(state=JobState.CANCELLED, lease_until=None, not_before=None)
    )
    return len(session.execute(cancelled.returning(Job.id)).all())


def retry(session: Session, run_id: int) -> int:
    """Retry what failed, was cancelled or was skipped in an ended run; returns how many jobs.

    Their failures and losses are reset; nothing that is finished runs again. Raises ``IntegrityError``
    (the index ``one_active_run_per_identity``) where another run of the same identity is active.
    """
    returned = (
        update(Job)
        .where(
            Job.run_id == run_id,
            Job.state.in_(RETRIED),
            exists().where(Run.id == run_id, Run.state.in_((RunState.FAILED, RunState.CANCELLED))),
        )
        .values(state=JobState.WAITING, failures=0, losses=0, not_before=None, error=None)
    )
    jobs = len(session.execute(returned.returning(Job.id)).all())
    if jobs:
        session.execute(update(Run).where(Run.id == run_id).values(state=RunState.ACTIVE, finished_at=None))
        # all of them are waiting now: those whose parents have succeeded become ready
        recount(session, run_id)
    return jobs
