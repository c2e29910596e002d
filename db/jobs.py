"""The guarded transitions of a job: claim, renew, finish, fail, put back, lose.

Every transition is one UPDATE that names the state it leaves and, once running, the attempt; where no row
answers, another process was faster and nothing is written. The caller opens the transaction.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, exists, insert, or_, select, update
from sqlalchemy.orm import Session

from db.artifacts import StoredFile
from db.clock import now
from db.graph import release_children, skip_descendants
from db.limits import BACKOFF_SECONDS, LEASE_SECONDS, MAX_FAILURES, MAX_LOSSES
from db.models import Artifact, Attempt, Base, Job, JobDependency, JobState, Run, RunState
from db.runs import settle_run

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
class Held:
    """One attempt's hold on a job; ``attempt`` is the fencing token."""

    job_id: int
    run_id: int
    attempt: int


@dataclass(frozen=True)
class Claim(Held):
    """A hold with all that the attempt computes from."""

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
    codes: tuple[str, ...]
    """The ``jobs.code`` that this code computes; other jobs are left alone."""


@dataclass(frozen=True)
class Outcome:
    """What an attempt leaves: a file, rows, and its peak memory."""

    file: StoredFile | None
    rows: Rows
    peak_memory_bytes: int


def claim(session: Session, job_id: int, worker: Worker) -> Claim | None:
    """Claim a ready or queued job for one lease; None if there is nothing to run.

    A key that already has its artifact is not run: the job succeeds at once. A key that another run's live
    attempt computes raises ``IntegrityError`` (the index ``one_running_job_per_key``): leave it alone.
    """
    statement = (
        update(Job)
        .where(
            Job.id == job_id,
            Job.state.in_((JobState.READY, JobState.QUEUED)),
            # other code would store its result under a key that promises something else
            Job.code.in_(worker.codes),
            or_(Job.not_before.is_(None), Job.not_before <= now()),
            # the message may be older than the cancellation
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
    # after the update, which on Postgres waits for another run's attempt at this key to commit, so that its
    # artifact is seen here
    artifact_id = session.scalar(select(Artifact.id).where(Artifact.key == row.key))
    if artifact_id is not None:
        # no row in attempts, since nothing was executed
        _succeed(session, Held(job_id, row.run_id, row.attempt), cached=True)
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


def wanted_code(session: Session, job_id: int) -> str | None:
    """The code that a job which could be claimed asks for; None where it cannot be."""
    claimable = (JobState.READY, JobState.QUEUED)
    return session.scalar(select(Job.code).where(Job.id == job_id, Job.state.in_(claimable)))


def _inputs(session: Session, job_id: int) -> tuple[JobInput, ...]:
    statement = (
        select(Job.id, Job.stage, Job.params, Job.artifact_id, Artifact.uri, Artifact.sha256)
        .join(JobDependency, JobDependency.parent_id == Job.id)
        .outerjoin(Artifact, Artifact.id == Job.artifact_id)
        .where(JobDependency.child_id == job_id, JobDependency.reads)
        .order_by(JobDependency.position)
    )
    return tuple(JobInput(*row) for row in session.execute(statement))


def renew(session: Session, held: Held) -> bool:
    """Extend the lease; False if this attempt no longer holds the job."""
    statement = update(Job).where(*_is(held)).values(lease_until=now() + LEASE_SECONDS)
    return session.execute(statement.returning(Job.id)).one_or_none() is not None


def saved_progress(session: Session, held: Held) -> bool:
    """A checkpoint was saved: earlier losses of workers count no more; False where fenced out."""
    # after the file is on disk: otherwise a job that is killed whenever it saves would run forever
    statement = update(Job).where(*_is(held)).values(losses=0)
    return session.execute(statement.returning(Job.id)).one_or_none() is not None


def finish(session: Session, claim: Claim, outcome: Outcome) -> bool:
    """Write artifact, rows and success together and release the children; False where fenced out."""
    # the guard first: an attempt that was fenced out must leave neither artifact nor rows
    if not _succeed(session, claim, cached=False):
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


def _succeed(session: Session, held: Held, *, cached: bool) -> bool:
    statement = (
        update(Job)
        .where(*_is(held))
        .values(state=JobState.SUCCEEDED, lease_until=None, cached=cached, error=None)
    )
    return session.execute(statement.returning(Job.id)).one_or_none() is not None


def _deliver(session: Session, job_id: int, artifact_id: int) -> None:
    """Attach the artifact to a job that succeeded, and release whatever waited for it."""
    # a second update: only after the first, which guards, was there an artifact to name
    delivered = update(Job).where(Job.id == job_id).values(artifact_id=artifact_id)
    run_id, key = session.execute(delivered.returning(Job.run_id, Job.key)).one()
    release_children(session, job_id)
    # Another run's job that waited for this key is dispatched at once and finds the artifact.
    session.execute(
        update(Job).where(Job.key == key, Job.state == JobState.QUEUED).values(state=JobState.READY)
    )
    settle_run(session, run_id)


def fail(session: Session, held: Held, error: str, traceback: str | None, *, retry: bool) -> bool:
    """Record a failure: the job is retried after a delay, or fails for good and its descendants are skipped."""
    # only read here: the update below names state and attempt again
    failures = session.scalar(select(Job.failures).where(*_is(held)))
    if failures is None:
        return False
    values: dict[str, Any] = {"state": JobState.FAILED, "failures": failures + 1, "error": error}
    if retry and failures + 1 < MAX_FAILURES:
        # jitter, so that jobs that failed together do not come back together
        delay = BACKOFF_SECONDS * 2**failures * random.uniform(0.5, 1.5)
        values |= {"state": JobState.READY, "not_before": now() + delay}
    return _leave(session, held, values, "failed", traceback)


def put_back(session: Session, held: Held, outcome: str) -> bool:
    """Return a job without counting a failure or loss; the caller rebuilds its counter."""
    return _leave(session, held, {"state": JobState.READY}, outcome)


def lose(session: Session, held: Held, worker: str) -> bool:
    """The attempt's worker is lost: the job runs again, or fails after too many losses."""
    # read without the lock, as in fail(): the update is the guard
    losses = session.scalar(select(Job.losses).where(*_is(held)))
    if losses is None:
        return False
    final = losses + 1 >= MAX_LOSSES
    error = f"lost its worker {losses + 1} times, the last time {worker}" if final else None
    state = JobState.FAILED if final else JobState.READY
    return _leave(session, held, {"state": state, "losses": losses + 1, "error": error}, "lost")


def _leave(
    session: Session, held: Held, values: Mapping[str, Any], outcome: str, traceback: str | None = None
) -> bool:
    """End a running attempt without a result; a failed job's descendants are skipped with it."""
    statement = update(Job).where(*_is(held)).values(lease_until=None, **values)
    if session.execute(statement.returning(Job.id)).one_or_none() is None:
        return False
    _close_attempt(session, held, outcome, traceback=traceback)
    if values["state"] == JobState.FAILED:
        skip_descendants(session, held.job_id)
        settle_run(session, held.run_id)
    return True


def _is(held: Held) -> Iterable[ColumnElement[bool]]:
    return (Job.id == held.job_id, Job.state == JobState.RUNNING, Job.attempt == held.attempt)


def _close_attempt(
    session: Session, held: Held, outcome: str, *, traceback: str | None = None, memory: int | None = None
) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == held.job_id, Attempt.attempt == held.attempt)
        .values(finished_at=now(), outcome=outcome, traceback=traceback, peak_memory_bytes=memory)
    )
