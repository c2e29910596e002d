"""Transitions of whole runs: ended, cancelled, retried; and their progress.

Who locks jobs and their run locks the jobs first, as the end of a job does, and of several runs the oldest first.
"""

from collections.abc import Collection

from sqlalchemy import ColumnElement, bindparam, case, exists, func, literal_column, select, update
from sqlalchemy.orm import Session

from db.clock import now
from db.engine import execute
from db.graph import lock, recount
from db.models import OPEN, Attempt, Job, JobState, Run, RunState, in_state, is_active

UNFINISHED = tuple(state for state in JobState if state != JobState.SUCCEEDED)
"""What a retry brings back."""


def active_runs(session: Session) -> list[int]:
    """Runs that have not ended, oldest first."""
    return list(session.scalars(select(Run.id).where(is_active()).order_by(Run.id)))


def working_runs(session: Session, codes: Collection[str]) -> list[int]:
    """Active runs with an unfinished job that this code computes, oldest first."""
    ours = exists().where(Job.run_id == Run.id, Job.state.in_(OPEN), Job.code.in_(codes))
    return list(session.scalars(select(Run.id).where(is_active(), ours).order_by(Run.id)))


def torn_runs(session: Session) -> list[int]:
    """Runs that have ended although some of their jobs have not: none, unless something here is wrong."""
    torn = exists().where(Job.run_id == Run.id, Job.state.in_(OPEN))
    return list(session.scalars(select(Run.id).where(~is_active(), torn).order_by(Run.id)))


def other_codes(session: Session, run_id: int, codes: Collection[str]) -> list[str]:
    """The code that a run's unfinished jobs need and that is not among ``codes``."""
    statement = (
        select(Job.code)
        .where(Job.run_id == run_id, Job.state.in_(UNFINISHED), Job.code.not_in(codes))
        .group_by(Job.code)
        .order_by(func.min(Job.id))
    )
    return list(session.scalars(statement))


# ---- the end ------------------------------------------------------------------------------------------


def _has(*states: JobState) -> ColumnElement[bool]:
    """Whether the run has a job in one of these states; one look into the index ``jobs_by_run``."""
    spelt = [literal_column(f"'{state}'", Job.state.type) for state in states]
    return exists().where(Job.run_id == bindparam("run"), Job.state.in_(spelt))


_COMING = select(_has(JobState.WAITING, JobState.READY, JobState.QUEUED))
# key_share: no stronger than the update below, so that foreign keys to the run can be checked
_LOCK = select(Run.id).where(Run.id == bindparam("run")).with_for_update(key_share=True)
_SETTLE = (
    update(Run)
    .where(Run.id == bindparam("run"), is_active(), ~_has(*OPEN))
    .values(
        state=case(
            (_has(*UNFINISHED), literal_column("'failed'", Run.state.type)),
            else_=literal_column("'succeeded'", Run.state.type),
        ),
        finished_at=now(),
    )
)


def settle_run(session: Session, run_id: int) -> None:
    """End a run whose jobs have all ended.

    If only running jobs are left, the run is locked first: of the last two that finish at the same time, the
    second then sees that the first has ended. On Postgres a failure that skips the last waiting jobs may still
    miss a concurrent finish; the reconciler checks again in every round.
    """
    # the usual case, and it takes no lock: most jobs end while others are still to come
    if execute(session, _COMING, run=run_id).scalar():
        return
    execute(session, _LOCK, run=run_id)
    execute(session, _SETTLE, run=run_id)


def cancel(session: Session, run_id: int) -> int | None:
    """End an active run: whatever is not finished is cancelled, running attempts are fenced out at once.

    Returns how many jobs were cancelled, None where the run was not active. What was finished stays.
    """
    # before the attempts are closed, or a claim in between would leave an attempt open
    lock(session, (Job.run_id == run_id) & Job.state.in_(OPEN))
    ended = update(Run).where(Run.id == run_id, is_active())
    # the run's row decides: of two commands that cancel at once, one finds it ended
    if not execute(session, ended.values(state=RunState.CANCELLED, finished_at=now())).rowcount:
        return None
    running = select(Job.id).where(Job.run_id == run_id, in_state(JobState.RUNNING))
    closed = update(Attempt).where(Attempt.job_id.in_(running), Attempt.finished_at.is_(None))
    execute(session, closed.values(finished_at=now(), outcome="cancelled"))
    unfinished = update(Job).where(Job.run_id == run_id, Job.state.in_(OPEN))
    cancelled = unfinished.values(state=JobState.CANCELLED, lease_until=None, not_before=None)
    return execute(session, cancelled).rowcount


def retry(session: Session, run_id: int) -> int:
    """Try what has not succeeded in an ended run again; returns how many jobs.

    Their failures and losses are reset; nothing that is finished runs again. Raises ``IntegrityError``
    (the index ``one_active_run_per_identity``) where another run of the same identity is active.
    """
    unfinished = (Job.run_id == run_id, Job.state.in_(UNFINISHED))
    ended = update(Run).where(Run.id == run_id, ~is_active(), exists().where(*unfinished))
    # the run first, since nothing else touches the jobs of one that has ended
    if not execute(session, ended.values(state=RunState.ACTIVE, finished_at=None)).rowcount:
        return 0
    fresh = {"state": JobState.WAITING, "failures": 0, "losses": 0, "not_before": None, "error": None}
    returned = update(Job).where(*unfinished).values(lease_until=None, **fresh)
    jobs = execute(session, returned).rowcount
    # all of them are waiting now: those whose parents have succeeded become ready
    recount(session, run_id)
    return jobs


# ---- progress -----------------------------------------------------------------------------------------


def progress(session: Session, run_id: int) -> dict[str, dict[JobState, int]]:
    """Jobs by stage and state."""
    counts: dict[str, dict[JobState, int]] = {}
    statement = (
        select(Job.stage, Job.state, func.count())
        .where(Job.run_id == run_id)
        .group_by(Job.state, Job.stage)  # as the index has them
        .order_by(func.min(Job.id))
    )
    for stage, state, count in session.execute(statement):
        counts.setdefault(stage, {})[state] = count
    return counts
