"""What heals a run: lost workers, bad artifacts, counters that drifted."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, String, cast, exists, func, literal_column, select, true, update
from sqlalchemy.orm import Session

from db.clock import now
from db.graph import around, lock, recount_around
from db.jobs import Claim, Held, JobInput, fail, lose, put_back
from db.models import Artifact, Attempt, Job, JobDependency, JobState, Run, RunState, in_state
from db.runs import settle_run

MAX_REPAIRS = 10
"""How often a run may find one input bad; without a limit, a worker that never sees a file would repeat it forever."""
SET_ASIDE = "input set aside"


def expire(session: Session) -> int:
    """Take back jobs whose lease has expired or whose attempt exceeded its deadline; returns how many.

    The first is a lost worker, the second a failure of the job's own. Jobs that another transaction is changing are
    left to the next call.
    """
    # deadlines first: an attempt that is both late and without a lease is the job's own failure
    overdue = Attempt.started_at + Job.deadline_seconds < now()
    late = [
        fail(session, held, f"ran longer than its deadline of {deadline} s", None, retry=True)
        for held, _, _, deadline in _running(session, overdue, wait=False)
    ]
    expired = _running(session, Job.lease_until < now(), wait=False)
    lost = [lose(session, held, worker) for held, worker, *_ in expired]
    return sum(late) + sum(lost)


def release_worker(session: Session, worker: str, *, charged: bool) -> int:
    """Take back what a dead worker held; counted as losses unless its supervisor ended it."""
    return sum(
        lose(session, held, name) if charged else put_back(session, held, "released")
        for held, name, *_ in _running(session, Attempt.worker == worker)
    )


def release_processes(session: Session, worker: str, processes: Collection[int]) -> int:
    """Take back what these dead processes of a worker held."""
    theirs = (Attempt.worker == worker) & Attempt.process.in_(processes)
    return sum(lose(session, held, name) for held, name, *_ in _running(session, theirs))


class _Running(NamedTuple):
    """An attempt that runs, where it does, and its job's deadline."""

    held: Held
    worker: str
    process: int
    deadline_seconds: int


def _running(session: Session, condition: ColumnElement[bool], *, wait: bool = True) -> list[_Running]:
    statement = (
        select(
            Job.id, Job.run_id, Job.attempt, Job.token, Attempt.worker, Attempt.process, Job.deadline_seconds
        )
        .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.attempt == Job.attempt))
        .where(in_state(JobState.RUNNING), condition)
        # so that two reconcilers that take back the same jobs lock them in the same order; not by the column
        # itself, in whose order SQLite would rather read all jobs
        .order_by(Job.id + literal_column("0"))
    )
    if not wait:
        # a job that has just lost its worker may be about to end, in a transaction that stands still
        statement = statement.with_for_update(skip_locked=True, of=Job)
    return [_Running(Held(*row[:3], row[3] or 0), *row[4:]) for row in session.execute(statement).all()]


def repair(session: Session, claim: Claim, bad: JobInput) -> bool:
    """A reader found the artifact of its input bad: set it aside and make it again before the reader runs.

    The artifact's row keeps its rows for the runs that have ended, under a key that no job asks for; in every
    active run its job is reopened, with those ancestors that must be there again. False where fenced out.
    """
    if _repairs(session, claim.run_id, bad.job_id) >= MAX_REPAIRS:
        why = f"the file of its input, job {bad.job_id}, was bad {MAX_REPAIRS + 1} times"
        return fail(session, claim, f"{why}; do all workers see the same artifact store?", None, retry=False)
    makers = _makers(session, bad)
    touched = [claim.job_id, *makers]
    # all that may change, before anything does: jobs, then runs, in the order of every other transition
    lock(session, around(touched))
    runs = _lock_active(session, {claim.run_id, *makers.values()})
    # before anything else is touched: a reader that was fenced out may set nothing aside
    if not put_back(session, claim, SET_ASIDE):
        return False
    if bad.artifact_id is not None:
        set_aside(session, bad.artifact_id)
    # asked again, after the locks: a run may have ended, a job may have been made again
    has_no_other = Job.artifact_id.is_(None) | (Job.artifact_id == bad.artifact_id)
    reopened = (
        update(Job)
        .where(Job.id.in_(makers), Job.run_id.in_(runs), Job.state == JobState.SUCCEEDED, has_no_other)
        .values(state=JobState.WAITING, artifact_id=None, cached=False)
    )
    session.execute(reopened)
    recount_around(session, touched)
    # a job that cannot be made again was skipped, and may have been the last
    for run_id in runs:
        settle_run(session, run_id)
    return True


def _makers(session: Session, bad: JobInput) -> dict[int, int]:
    """The jobs of active runs that must make a bad input again, with their runs: its own and those that they read.

    An ancestor without an artifact was cached because nothing needed it, and now something does.
    """
    key = select(Job.key).where(Job.id == bad.job_id).scalar_subquery()
    active = select(Run.id).where(Run.state == RunState.ACTIVE)
    # other runs share the artifact, and with it the bad file
    lacking: ColumnElement[bool] = Job.artifact_id == bad.artifact_id
    if bad.artifact_id is None:
        lacking &= Job.id == bad.job_id
    makers = (
        select(Job.id, Job.run_id)
        .where(Job.key == key, lacking, Job.state == JobState.SUCCEEDED, Job.run_id.in_(active))
        .cte("makers", recursive=True)
    )
    ancestors = (
        select(Job.id, Job.run_id)
        .join(JobDependency, JobDependency.parent_id == Job.id)
        .join(makers, makers.c.id == JobDependency.child_id)
        .where(JobDependency.reads, Job.state == JobState.SUCCEEDED, Job.artifact_id.is_(None))
    )
    return dict(session.execute(select(makers.union(ancestors))).all())


def _lock_active(session: Session, run_ids: Collection[int]) -> list[int]:
    """Those of the runs that are active, which they stay until the transaction ends."""
    active = select(Run.id).where(Run.id.in_(run_ids), Run.state == RunState.ACTIVE)
    # key_share: no stronger than an update's lock, so that foreign keys to a run can be checked
    return list(session.scalars(active.order_by(Run.id).with_for_update(key_share=True)))


def set_aside(session: Session, artifact_id: int) -> None:
    """Keep an artifact's row and its result rows, under a key that no job asks for."""
    session.execute(
        update(Artifact)
        # a key is hexadecimal: a colon says that another reader has set it aside already
        .where(Artifact.id == artifact_id, ~Artifact.key.contains(":"))
        # the id makes the new key unique, since the same key may be set aside more than once
        .values(key=Artifact.key + ":set-aside-" + cast(Artifact.id, String))
    )


def _repairs(session: Session, run_id: int, job_id: int) -> int:
    """How often a job's artifact was made since the run began and then set aside."""
    key = select(Job.key).where(Job.id == job_id).scalar_subquery()
    began = select(Run.created_at).where(Run.id == run_id).scalar_subquery()
    # keys are hexadecimal: by any database's order what begins with this one lies before it with a z
    among = (Artifact.key > key, Artifact.key < key.concat("zz"))
    bad = (*among, Artifact.key.startswith(key.concat(":set-aside-")), Artifact.created_at >= began)
    return session.scalar(select(func.count()).select_from(Artifact).where(*bad)) or 0


def is_dead(session: Session, job_id: int, attempt: int) -> bool:
    """Whether no live attempt can still own files of this name."""
    alive = exists().where(Job.id == job_id, Job.attempt == attempt, Job.state == JobState.RUNNING)
    return not session.scalar(select(alive))


def has_artifact(session: Session, key: str) -> bool:
    """Whether the result of this key is stored."""
    return session.scalar(select(Artifact.id).where(Artifact.key == key)) is not None


def busy_workers(session: Session) -> dict[str, set[int]]:
    """The processes that hold a job, by worker."""
    busy: dict[str, set[int]] = {}
    for running in _running(session, true()):
        busy.setdefault(running.worker, set()).add(running.process)
    return busy
