"""The guarded transitions of a job: claim, renew, finish, fail, put back.

Every transition is one UPDATE that names the state it leaves and, once running, the attempt; where no row
answers, somebody else was faster and nothing is written. The caller opens the transaction.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.artifacts import StoredFile
from db.clock import now
from db.models import OPEN, Artifact, Attempt, Base, Job, JobDependency, JobState, Run, RunState

LEASE_SECONDS = 30.0
MAX_FAILURES = 3
MAX_LOSSES = 3
BACKOFF_SECONDS = 1.0

Rows = Mapping[type[Base], list[dict[str, Any]]]


@dataclass(frozen=True)
class JobInput:
    """A finished job that another reads."""

    job_id: int
    stage: str
    params: dict[str, Any] = field(hash=False)
    artifact_id: int | None
    uri: str | None
    sha256: str | None


@dataclass(frozen=True)
class Claim:
    """One attempt's hold on a job; ``attempt`` is the fencing token."""

    job_id: int
    run_id: int
    attempt: int
    stage: str
    label: str
    key: str
    params: dict[str, Any]
    inputs: tuple[JobInput, ...]

    @property
    def writer(self) -> str:
        """Names this attempt's temporary files."""
        return f"{self.job_id}.{self.attempt}"


@dataclass(frozen=True)
class Worker:
    """Who executes an attempt."""

    name: str
    host: str
    process: int


@dataclass(frozen=True)
class Outcome:
    """What an attempt leaves: a file, rows, and its peak memory."""

    file: StoredFile | None
    rows: Rows
    peak_memory_bytes: int


def claim(session: Session, job_id: int, worker: Worker) -> Claim | None:
    """Hold a ready or queued job for one lease; None where there is nothing to run.

    A key that already has its artifact is not run: the job succeeds at once. A key that another run's live
    attempt computes raises ``IntegrityError`` (the index ``one_running_job_per_key``): leave it alone.
    """
    statement = (
        update(Job)
        .where(
            Job.id == job_id,
            Job.state.in_((JobState.READY, JobState.QUEUED)),
            or_(Job.not_before.is_(None), Job.not_before <= now()),
            exists().where(Run.id == Job.run_id, Run.state == RunState.ACTIVE),
        )
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            lease_until=now() + LEASE_SECONDS,
            not_before=None,
        )
        .returning(Job.run_id, Job.attempt, Job.stage, Job.label, Job.key, Job.params)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    artifact_id = session.scalar(select(Artifact.id).where(Artifact.key == row.key))
    if artifact_id is not None:
        _succeed(session, job_id, row.attempt, found=True)
        _deliver(session, job_id, artifact_id)
        return None
    session.execute(
        insert(Attempt).values(
            job_id=job_id,
            attempt=row.attempt,
            worker=worker.name,
            host=worker.host,
            process=worker.process,
            started_at=now(),
        )
    )
    return Claim(
        job_id,
        row.run_id,
        row.attempt,
        row.stage,
        row.label,
        row.key,
        row.params,
        _inputs(session, job_id),
    )


def _inputs(session: Session, job_id: int) -> tuple[JobInput, ...]:
    statement = (
        select(Job.id, Job.stage, Job.params, Job.artifact_id, Artifact.uri, Artifact.sha256)
        .join(JobDependency, JobDependency.parent_id == Job.id)
        .outerjoin(Artifact, Artifact.id == Job.artifact_id)
        .where(JobDependency.child_id == job_id, JobDependency.reads)
        .order_by(JobDependency.position)
    )
    return tuple(JobInput(*row) for row in session.execute(statement))


def renew(session: Session, claim: Claim) -> bool:
    """Extend the lease; False where this attempt no longer holds the job, or its run is not active any more."""
    active = exists().where(Run.id == Job.run_id, Run.state == RunState.ACTIVE)
    statement = update(Job).where(*_held(claim), active).values(lease_until=now() + LEASE_SECONDS)
    return session.execute(statement.returning(Job.id)).one_or_none() is not None


def finish(session: Session, claim: Claim, outcome: Outcome) -> bool:
    """Write artifact, rows and success together and release the children; False where fenced out."""
    if not _succeed(session, claim.job_id, claim.attempt, found=False):
        return False
    artifact_id = session.scalar(select(Artifact.id).where(Artifact.key == claim.key))
    if artifact_id is None:
        artifact_id = _store(session, claim, outcome)
    _deliver(session, claim.job_id, artifact_id)
    _close_attempt(session, claim, "succeeded", memory=outcome.peak_memory_bytes)
    return True


def _store(session: Session, claim: Claim, outcome: Outcome) -> int:
    file = outcome.file
    artifact = Artifact(
        key=claim.key,
        stage=claim.stage,
        uri=file.uri if file else None,
        sha256=file.sha256 if file else None,
        bytes=file.bytes if file else 0,
        created_at=session.scalar(select(now())),
    )
    session.add(artifact)
    session.flush()
    for table, rows in outcome.rows.items():
        if rows:
            session.execute(insert(table), [{"artifact_id": artifact.id, **row} for row in rows])
    return artifact.id


def _succeed(session: Session, job_id: int, attempt: int, *, found: bool) -> bool:
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.RUNNING, Job.attempt == attempt)
        .values(state=JobState.SUCCEEDED, lease_until=None, found=found, error=None)
    )
    return session.execute(statement.returning(Job.id)).one_or_none() is not None


def _deliver(session: Session, job_id: int, artifact_id: int) -> None:
    """Give a job that succeeded its artifact, and everyone who waited for it what follows."""
    delivered = update(Job).where(Job.id == job_id).values(artifact_id=artifact_id)
    run_id, key = session.execute(delivered.returning(Job.run_id, Job.key)).one()
    _release_children(session, job_id)
    # Another run's job that waited for this key to be computed is rung at once and finds the artifact.
    session.execute(
        update(Job).where(Job.key == key, Job.state == JobState.QUEUED).values(state=JobState.READY)
    )
    settle_run(session, run_id)


def _release_children(session: Session, job_id: int) -> None:
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


def fail(session: Session, claim: Claim, error: str, traceback: str, *, retry: bool) -> bool:
    """Record a failure: the job comes back after a delay, or has failed and its descendants are skipped."""
    failures = session.scalar(select(Job.failures).where(*_held(claim)))
    if failures is None:
        return False
    if retry and failures + 1 < MAX_FAILURES:
        delay = BACKOFF_SECONDS * 2**failures * random.uniform(0.5, 1.5)
        values = {"state": JobState.READY, "not_before": now() + delay}
    else:
        values = {"state": JobState.FAILED}
    statement = (
        update(Job)
        .where(*_held(claim))
        .values(lease_until=None, failures=Job.failures + 1, error=error, **values)
    )
    if session.execute(statement.returning(Job.id)).one_or_none() is None:
        return False
    _close_attempt(session, claim, "failed", traceback=traceback)
    if values["state"] == JobState.FAILED:
        skip_descendants(session, claim.job_id)
        settle_run(session, claim.run_id)
    return True


def put_back(session: Session, claim: Claim, outcome: str) -> bool:
    """Give a job back without charging it; its counter is rebuilt by who calls."""
    statement = update(Job).where(*_held(claim)).values(state=JobState.READY, lease_until=None)
    if session.execute(statement.returning(Job.id)).one_or_none() is None:
        return False
    _close_attempt(session, claim, outcome)
    return True


def skip_descendants(session: Session, job_id: int) -> None:
    """Everything that waits for a failed job, however far below, is skipped."""
    below = (
        select(JobDependency.child_id.label("id"))
        .where(JobDependency.parent_id == job_id)
        .cte("below", recursive=True)
    )
    below = below.union(
        select(JobDependency.child_id).join(below, JobDependency.parent_id == below.c.id),
    )
    session.execute(
        update(Job)
        .where(Job.id.in_(select(below.c.id)), Job.state == JobState.WAITING)
        .values(state=JobState.SKIPPED, error=f"skipped: it depends on job {job_id}, which failed")
    )


def settle_run(session: Session, run_id: int) -> None:
    """End a run whose jobs have all ended.

    Who sees none but running jobs left locks the run first: of the last two that finish at the same time, the
    second then sees that the first has ended.
    """
    coming = exists().where(Job.run_id == run_id, Job.state.in_(OPEN), Job.state != JobState.RUNNING)
    if session.scalar(select(coming)):
        return
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


def _held(claim: Claim) -> Iterable[ColumnElement[bool]]:
    return (Job.id == claim.job_id, Job.state == JobState.RUNNING, Job.attempt == claim.attempt)


def _close_attempt(
    session: Session, claim: Claim, outcome: str, *, traceback: str | None = None, memory: int | None = None
) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == claim.job_id, Attempt.attempt == claim.attempt)
        .values(finished_at=now(), outcome=outcome, traceback=traceback, peak_memory_bytes=memory)
    )
