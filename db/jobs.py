"""Jobs that run: their claims, and the guarded transitions by which an attempt renews, finishes, fails or is lost.

Every transition is one UPDATE that names the state it leaves and the claim's token; where no row answers, another
process was faster and nothing is written. Those at every job's end are built once, when this module is loaded. The
caller opens the transaction.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, String, bindparam, exists, insert, select, update
from sqlalchemy.orm import Session, aliased

from db.artifacts import StoredFile
from db.clock import now
from db.engine import execute
from db.graph import release_children, skip_descendants
from db.limits import BACKOFF_SECONDS, LEASE_SECONDS, MAX_FAILURES, MAX_LOSSES
from db.models import Artifact, Attempt, Base, Job, JobState, in_state
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
    """One attempt's hold on a job; ``token`` fences every other attempt out.

    The number alone would not: in a database that was restored, or that lags behind, it is given twice.
    """

    job_id: int
    run_id: int
    attempt: int
    token: int


@dataclass(frozen=True)
class Claim(Held):
    """A hold with all that the attempt computes from."""

    stage: str
    queue: str
    code: str
    label: str
    key: str
    params: dict[str, Any] = field(hash=False)
    alone: bool
    inputs: tuple[JobInput, ...] = ()

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


# ---- statements at every job's end --------------------------------------------------------------------

_HELD = (Job.id == bindparam("held_job"), in_state(JobState.RUNNING), Job.token == bindparam("held_token"))
_RENEW = update(Job).where(*_HELD).values(lease_until=now() + bindparam("lease_seconds")).returning(Job.id)
_FORGET_LOSSES = update(Job).where(*_HELD).values(losses=0).returning(Job.id)
_same_key = aliased(Artifact)
_STORE = (
    insert(Artifact)
    .from_select(
        ["key", "stage", "uri", "sha256", "bytes", "created_at"],
        select(
            Job.key,
            Job.stage,
            bindparam("uri", type_=String),
            bindparam("sha256", type_=String),
            bindparam("size", type_=BigInteger),
            now(),
        )
        # an attempt that was fenced out must leave neither artifact nor rows
        .where(*_HELD, ~exists().where(_same_key.key == Job.key))
        .with_for_update(of=Job),
    )
    .returning(Artifact.id)
)
_STORED = select(Artifact.id).where(Artifact.key == bindparam("of_key"))
_SUCCEED = (
    update(Job)
    .where(*_HELD)
    .values(
        state=JobState.SUCCEEDED,
        lease_until=None,
        artifact_id=bindparam("made"),
        cached=bindparam("was_cached"),
        error=None,
    )
    .returning(Job.id)
)
_CLOSE = (
    update(Attempt)
    .where(Attempt.job_id == bindparam("held_job"), Attempt.attempt == bindparam("held_attempt"))
    .values(
        finished_at=now(),
        outcome=bindparam("how"),
        traceback=bindparam("trace"),
        peak_memory_bytes=bindparam("memory"),
    )
)


def _of(held: Held) -> dict[str, int]:
    return {"held_job": held.job_id, "held_token": held.token}


# ---- transitions --------------------------------------------------------------------------------------


def renew(session: Session, held: Held) -> bool:
    """Extend the lease; False if this attempt no longer holds the job."""
    return execute(session, _RENEW, lease_seconds=LEASE_SECONDS, **_of(held)).one_or_none() is not None


def saved_progress(session: Session, held: Held) -> bool:
    """A checkpoint was saved: earlier losses of workers count no more; False where fenced out."""
    # after the file is on disk: otherwise a job that is killed whenever it saves would run forever
    return execute(session, _FORGET_LOSSES, **_of(held)).one_or_none() is not None


def finish(session: Session, claim: Claim, outcome: Outcome, *, run_goes_on: bool = False) -> bool:
    """Write artifact, rows and success together and release the children; False where fenced out.

    ``run_goes_on``: another job of the run was claimed in this transaction, so that it cannot end here.
    """
    file = outcome.file
    made = execute(
        session,
        _STORE,
        uri=file.uri if file else None,
        sha256=file.sha256 if file else None,
        size=file.bytes if file else 0,
        **_of(claim),
    ).scalar()
    if made is None:
        # the key has its artifact, or this attempt was fenced out, which the next statement finds
        made = execute(session, _STORED, of_key=claim.key).scalar()
    else:
        for table, rows in outcome.rows.items():
            if rows:
                execute(session, insert(table), [{"artifact_id": made, **row} for row in rows])
    if not succeed(session, claim, made, cached=False):
        return False
    _close(session, claim, "succeeded", memory=outcome.peak_memory_bytes)
    deliver(session, claim, run_goes_on=run_goes_on)
    return True


def succeed(session: Session, held: Held, artifact_id: int | None, *, cached: bool) -> bool:
    """Attach the artifact; False where fenced out."""
    done = execute(session, _SUCCEED, made=artifact_id, was_cached=cached, **_of(held))
    return done.one_or_none() is not None


def deliver(session: Session, held: Held, *, run_goes_on: bool = False) -> None:
    """Release whatever waited for a job that has succeeded, or end its run."""
    # last of all, since other parents of the same children wait for their rows
    released = release_children(session, held.job_id)
    if not (released or run_goes_on):
        settle_run(session, held.run_id)


def fail(session: Session, held: Held, error: str, traceback: str | None, *, retry: bool) -> bool:
    """Record a failure: the job is retried after a delay, or fails for good and its descendants are skipped."""
    # only read here: the update below names state and attempt again
    failures = execute(session, select(Job.failures).where(*_HELD), **_of(held)).scalar()
    if failures is None:
        return False
    values: dict[str, Any] = {"state": JobState.FAILED, "failures": failures + 1, "error": error}
    if retry and failures + 1 < MAX_FAILURES:
        # jitter, so that jobs that failed together do not come back together
        delay = BACKOFF_SECONDS * 2**failures * random.uniform(0.5, 1.5)
        values |= {"state": JobState.READY, "not_before": now() + delay}
    return _leave(session, held, values, "failed", traceback)


def put_back(session: Session, held: Held, outcome: str, *, error: str | None = None) -> bool:
    """Return a job without counting a failure or loss; who has reopened an input rebuilds its counter."""
    return _leave(session, held, {"state": JobState.READY, "error": error}, outcome)


def lose(session: Session, held: Held, worker: str) -> bool:
    """The attempt's worker is lost: the job runs again, or fails after too many losses."""
    # read without the lock, as in fail(): the update is the guard
    losses = execute(session, select(Job.losses).where(*_HELD), **_of(held)).scalar()
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
    left = update(Job).where(*_HELD).values(lease_until=None, **values).returning(Job.id)
    if execute(session, left, **_of(held)).one_or_none() is None:
        return False
    _close(session, held, outcome, traceback=traceback)
    if values["state"] == JobState.FAILED:
        skip_descendants(session, held.job_id)
        settle_run(session, held.run_id)
    return True


def _close(
    session: Session, held: Held, outcome: str, *, traceback: str | None = None, memory: int | None = None
) -> None:
    attempt = {"held_job": held.job_id, "held_attempt": held.attempt}
    execute(session, _CLOSE, how=outcome, trace=traceback, memory=memory, **attempt)
