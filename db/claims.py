"""Taking a job: the one that a message names, or the next of its kind, where it may run now.

A claim is one UPDATE that names the states it leaves and draws the token that guards every further transition.
Statements are built once, when this module is loaded; the caller opens the transaction.
"""

import secrets
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Row,
    Update,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from db.clock import now
from db.engine import execute
from db.jobs import Claim, Held, JobInput, Worker, deliver, succeed
from db.limits import LEASE_SECONDS
from db.models import Artifact, Attempt, Job, JobDependency, JobState, Run, in_state, is_active, is_computed
from db.shares import ALL_STAGES, ActiveRun, Turns, of_run, room

CACHED_AT_ONCE = 100
"""So many jobs whose results are there already end in one transaction, before others have their turn."""


def _may_run(job: Any) -> tuple[ColumnElement[bool], ...]:
    lonely = aliased(Job)
    of_lonely = (Attempt.job_id == lonely.id) & (Attempt.attempt == lonely.attempt)
    on_host = Attempt.host == bindparam("on_host")
    return (
        or_(job.not_before.is_(None), job.not_before <= now()),
        # the message may be older than the cancellation
        exists().where(Run.id == job.run_id, is_active()),
        ~is_computed(job),
        # a measurement has its host to itself
        ~exists().where(in_state(JobState.RUNNING, of=lonely), lonely.alone, of_lonely, on_host),
    )


def _take(*chosen: ColumnElement[bool]) -> Update:
    return (
        update(Job)
        .where(*chosen)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            token=bindparam("new_token"),
            lease_until=now() + bindparam("lease_seconds"),
            not_before=None,
        )
        .returning(
            *(Job.id, Job.run_id, Job.attempt, Job.token, Job.stage, Job.queue, Job.code),
            *(Job.label, Job.key, Job.params, Job.alone),
        )
    )


_ready = aliased(Job)
_TAKE_NAMED = _take(
    Job.id == bindparam("job"),
    in_state(JobState.READY, JobState.QUEUED),
    # other code would store its result under a key that promises something else
    Job.code.in_(bindparam("codes", expanding=True)),
    *_may_run(Job),
)
_TAKE_NEXT = _take(
    # equal to one value, which Postgres looks up once: a join might look, and lock, again
    Job.id
    == select(_ready.id)
    .where(
        *of_run(_ready),
        _ready.queue == bindparam("of_queue"),
        _ready.stage == bindparam("of_stage"),
        in_state(JobState.READY, of=_ready),
        _ready.code == bindparam("of_code"),
        ~_ready.alone,
        *_may_run(_ready),
    )
    .order_by(_ready.run_id, _ready.id)
    .limit(1)
    .with_for_update(skip_locked=True, of=_ready)
    .scalar_subquery(),
    in_state(JobState.READY),
)
_UNQUEUE = (
    update(Job).where(Job.id == bindparam("job"), in_state(JobState.QUEUED)).values(state=JobState.READY)
)
_UNQUEUE_TWIN = _UNQUEUE.where(is_computed())
_WHERE_IT_IS = select(Job.run_id, Job.stage).where(Job.id == bindparam("job"))
_FOUND = select(
    select(Artifact.id).where(Artifact.key == bindparam("of_key")).scalar_subquery(),
    exists().where(JobDependency.child_id == bindparam("job"), JobDependency.reads),
)
_BEGIN = insert(Attempt).values(started_at=now())
_INPUTS = (
    select(Job.id, Job.stage, Job.params, Job.artifact_id, Artifact.uri, Artifact.sha256)
    .join(JobDependency, JobDependency.parent_id == Job.id)
    .outerjoin(Artifact, Artifact.id == Job.artifact_id)
    .where(JobDependency.child_id == bindparam("job"), JobDependency.reads)
    .order_by(JobDependency.position)
)


def claim(session: Session, job_id: int, worker: Worker, turns: Turns) -> Claim | None:
    """Claim a ready or queued job for one lease; None if there is nothing to run.

    A key that already has its artifact is not run: the job succeeds at once. Where two claim the same key at the
    same moment, the second raises ``IntegrityError`` (the index ``one_running_job_per_key``): leave it alone.
    ``turns`` learns which runs are active.
    """
    turns.look(session)
    if any(run.limits for run in turns.runs) and not _named_has_room(session, job_id, turns):
        execute(session, _UNQUEUE, job=job_id)
        return None
    named = {"job": job_id, "codes": worker.codes, "on_host": worker.host}
    row = execute(session, _TAKE_NAMED, **named, **_hold()).one_or_none()
    if row is None:
        # ready again, so that it is dispatched when its twin has ended and holds no place in the window until then
        execute(session, _UNQUEUE_TWIN, job=job_id)
        return None
    turns.served(row.run_id)
    return _begin(session, row, worker)


def claim_next(session: Session, done: Claim, worker: Worker, turns: Turns) -> Claim | None:
    """Claim a ready job of the same stage, queue and code as ``done``, of the run whose turn it is.

    Raises as ``claim``.
    """
    for _ in range(CACHED_AT_ONCE):
        row = _next(session, done, worker, turns)
        if row is None:
            return None
        taken = _begin(session, row, worker)
        if taken is not None:
            return taken
    return None


def _next(session: Session, done: Claim, worker: Worker, turns: Turns) -> Row[*tuple[Any, ...]] | None:
    like = {"of_queue": done.queue, "of_stage": done.stage, "of_code": done.code, "on_host": worker.host}
    for run in turns:
        # what is done ends in this transaction
        if not _has_room(session, run, done.stage, ending=int(run.id == done.run_id)):
            continue
        row = execute(session, _TAKE_NEXT, run=run.id, **like, **_hold()).one_or_none()
        if row is not None:
            turns.served(run.id)
            return row
    return None


def _named_has_room(session: Session, job_id: int, turns: Turns) -> bool:
    job = execute(session, _WHERE_IT_IS, job=job_id).one_or_none()
    if job is None:
        return True
    return all(_has_room(session, run, job.stage) for run in turns.runs if run.id == job.run_id)


def _has_room(session: Session, run: ActiveRun, stage: str, *, ending: int = 0) -> bool:
    """Whether the run's limits allow one more job of the stage, ``ending`` of them being over in a moment."""
    left = room(session, run)
    return all(left[limited] + ending > 0 for limited in (ALL_STAGES, stage) if limited in left)


def _hold() -> dict[str, Any]:
    return {"new_token": secrets.randbits(63), "lease_seconds": LEASE_SECONDS}


def _begin(session: Session, row: Row[*tuple[Any, ...]], worker: Worker) -> Claim | None:
    """Begin the attempt at a job that was taken; None where its artifact is there and it has succeeded."""
    taken = Claim(*row)
    # after the update, which on Postgres waits for another run's attempt at this key to commit, so that its
    # artifact is seen here
    artifact_id, has_inputs = execute(session, _FOUND, of_key=taken.key, job=taken.job_id).one()
    if artifact_id is not None:
        # no row in attempts, since nothing was executed
        succeed(session, taken, artifact_id, cached=True)
        deliver(session, taken)
        return None
    execute(
        session,
        _BEGIN,
        job_id=taken.job_id,
        attempt=taken.attempt,
        worker=worker.name,
        host=worker.host,
        process=worker.process,
    )
    if not has_inputs:
        return taken
    inputs = execute(session, _INPUTS, job=taken.job_id)
    return replace(taken, inputs=tuple(JobInput(*row) for row in inputs))


class Refusal(NamedTuple):
    """Why a job that could be claimed was not."""

    code: str
    """What it asks for."""
    host_is_taken: bool
    """A measurement has the worker's host to itself."""


_OTHERS = (
    select(func.count())
    .select_from(Job)
    .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.attempt == Job.attempt))
    .where(in_state(JobState.RUNNING), Attempt.host == bindparam("on_host"), Job.id != bindparam("job"))
)
_LONELY = _OTHERS.where(Job.alone)
_OTHERS_BEFORE = _OTHERS.where(or_(~Job.alone, Job.id < bindparam("job")))
_WANTED = select(Job.code).where(Job.id == bindparam("job"), in_state(JobState.READY, JobState.QUEUED))


def why_not(session: Session, job_id: int, worker: Worker) -> Refusal | None:
    """Why a claim of this job was refused; None where it is not there to be claimed."""
    code = execute(session, _WANTED, job=job_id).scalar()
    if code is None:
        return None
    alone = execute(session, _LONELY, job=job_id, on_host=worker.host).scalar()
    return Refusal(code, bool(alone))


_RESTART = (
    update(Attempt)
    .where(Attempt.job_id == bindparam("held_job"), Attempt.attempt == bindparam("held_attempt"))
    .values(started_at=now())
)


def begin_again(session: Session, held: Held) -> None:
    """Count the attempt's time, and so its deadline, from now on."""
    execute(session, _RESTART, held_job=held.job_id, held_attempt=held.attempt)


def others_on_host(session: Session, held: Held, worker: Worker) -> int:
    """How many other jobs the worker's host executes; of two measurements the one with the smaller number is first."""
    return execute(session, _OTHERS_BEFORE, job=held.job_id, on_host=worker.host).scalar() or 0
