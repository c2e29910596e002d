"""One delivery of a message: claim a job, compute it with no transaction open, finish it with the next claim."""

import importlib
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from types import ModuleType

from billiard.common import terminate_handler_fired
from celery import Celery
from pydantic import TypeAdapter
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.claims import begin_again, claim, claim_next, others_on_host, why_not
from db.dispatch import top_up
from db.engine import Unreachable, read, write
from db.jobs import Claim, Outcome, Worker, fail, finish, put_back
from db.models import PUT_BACK
from db.recovery import repair
from db.shares import Turns
from early_exit.errors import Diverged
from tasks.doorbell import ring
from tasks.heartbeat import Heartbeat, LeaseLost
from tasks.job_io import InputBad, JobContext, Output, Refused
from tasks.node_faults import Pause, StageNotImported, has_lost_cuda, is_node_fault
from tasks.params import STAGES, StageParams

log = logging.getLogger(__name__)

LARGEST_JOB = 2**31 - 1
"""What the column holds; the database would raise for a larger number in a message."""


DRAIN_SECONDS = 1.0
"""For so long one message lets a process take one ready job of its stage after another."""
RING_SECONDS = 0.05
"""Between two dispatches while a process drains."""
CLAIM_TRIES = 3
LOOK_SECONDS = 1.0
"""How often is looked whether a host has become free."""


@dataclass(frozen=True)
class Workplace:
    """Where a worker finds its jobs and keeps what it makes, and what its process remembers from job to job."""

    engine: Engine
    store: ArtifactStore
    worker: Worker
    heartbeat: Heartbeat
    turns: Turns = field(default_factory=Turns)
    pause: Pause = field(default_factory=Pause)


class _FencedOut(Exception):
    """Rolls back the claim of the next job with the result that was refused."""


def run_job(workplace: Workplace, job_id: int) -> None:
    """Execute one job if it can be claimed."""
    held = _claim(workplace, job_id)
    if held is not None:
        _attempt(workplace, held, until=0.0)


def drain(workplace: Workplace, job_id: int) -> Generator[None]:
    """Execute a job if it can be claimed, then ready jobs of its stage for a bounded time.

    Yields at the end, and meanwhile now and then: send messages for what has become ready.
    """
    began = rung = time.monotonic()
    held = _claim(workplace, job_id)
    while held is not None:
        held = _attempt(workplace, held, until=began + DRAIN_SECONDS)
        if held is not None and time.monotonic() - rung > RING_SECONDS:
            rung = time.monotonic()
            try:
                yield
            except BaseException:  # also where nobody goes on: the job was claimed and nothing holds it
                write(workplace.engine, partial(put_back, held=held, outcome="released"))
                raise
    yield


def _claim(workplace: Workplace, job_id: int) -> Claim | None:
    tries = 0
    while True:
        try:
            held = write(
                workplace.engine, lambda session: claim(session, job_id, workplace.worker, workplace.turns)
            )
        except IntegrityError:
            # another run's attempt claimed the same key at the same moment, and is seen the next time
            tries += 1
            if tries == CLAIM_TRIES:
                raise
            continue
        if held is not None or not _is_kept_waiting(workplace, job_id):
            return held
        # a measurement has this host to itself: the message waits here, for other hosts take other ones
        time.sleep(LOOK_SECONDS)


def _is_kept_waiting(workplace: Workplace, job_id: int) -> bool:
    refusal = read(workplace.engine, lambda session: why_not(session, job_id, workplace.worker))
    if refusal is not None and refusal.code not in workplace.worker.codes:
        log.warning("job %s needs other code than this worker has: '%s'", job_id, refusal.code)
        return False
    return refusal is not None and refusal.host_is_taken


def _attempt(workplace: Workplace, held: Claim, until: float) -> Claim | None:
    """Execute a job; returns the next one, which is claimed with a success before ``until``."""
    engine, store = workplace.engine, workplace.store
    context = JobContext(held, engine, store)
    try:
        with workplace.heartbeat.holding(held):
            outcome = _compute(workplace, context)
            workplace.heartbeat.calm()
            following = _finish(workplace, held, outcome, until)
            # what cannot be deleted is a reconciler's, and no fault of a job that has succeeded
            with suppress(OSError):
                context.checkpoint.delete()
        workplace.pause.forget()
        return following
    except _FencedOut:
        log.warning("job %s attempt %s is fenced out: discarded", held.job_id, held.attempt)
    except LeaseLost:
        log.warning("job %s attempt %s lost its lease: stopped, discarded", held.job_id, held.attempt)
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, SystemExit) and not terminate_handler_fired():  # raised by the stage itself
            _fail(workplace, held, f"SystemExit: {error}", retry=True)
            return None
        write(engine, lambda session: put_back(session, held, "released"))  # the worker was told to end
        raise
    except InputBad as bad:
        log.warning("job %s: %s; it is made again", held.job_id, bad)
        source = bad.source
        write(engine, lambda session: repair(session, held, source))
        if source.uri is not None:
            store.set_aside(source.uri)
    except Unreachable as error:  # the lease runs out, and the job runs again
        log.error("job %s attempt %s is discarded: %s", held.job_id, held.attempt, error)
    except (Refused, Diverged) as error:
        _fail(workplace, held, str(error), retry=False)
        context.checkpoint.delete()
    except Exception as error:  # recorded for whatever reason a stage raises; the worker lives on
        if is_node_fault(error):
            _put_by(workplace, held, error)
        else:
            _fail(workplace, held, f"{type(error).__name__}: {error}", retry=True)
        if has_lost_cuda(error) and workplace.heartbeat.watched:
            os._exit(1)  # its parent forks a process that has not seen the GPU fail
    return None


def _finish(workplace: Workplace, held: Claim, outcome: Outcome, until: float) -> Claim | None:
    """Store an attempt's result and claim the next job in one transaction; raises ``_FencedOut``."""

    def end(session: Session, *, claims: bool) -> Claim | None:
        # before the finish, which locks the rows of children that other processes wait for
        following = claim_next(session, held, workplace.worker, workplace.turns) if claims else None
        goes_on = following is not None and following.run_id == held.run_id
        if not finish(session, held, outcome, run_goes_on=goes_on):
            raise _FencedOut
        return following

    claims = time.monotonic() < until
    try:
        return write(workplace.engine, partial(end, claims=claims))
    except IntegrityError:
        # another run claimed the same key at the same moment; whatever else it was comes up again
        if not claims:
            raise
        return write(workplace.engine, partial(end, claims=False))


def _put_by(workplace: Workplace, held: Claim, error: Exception) -> None:
    reason = _storable(f"{type(error).__name__}: {error}".splitlines()[0])
    fault = f"{PUT_BACK}{workplace.worker.host}: {reason}"
    log.error("job %s (%s %s) is %s", held.job_id, held.stage, held.label, fault)
    write(workplace.engine, lambda session: put_back(session, held, "node fault", error=fault))
    workplace.pause.take()


def _fail(workplace: Workplace, held: Claim, error: str, *, retry: bool) -> None:
    # one line for tables; the trace has the rest
    reason, trace = _storable(error.splitlines()[0]), _storable(traceback.format_exc())
    log.warning("job %s (%s %s): %s", held.job_id, held.stage, held.label, reason)
    write(workplace.engine, lambda session: fail(session, held, reason, trace, retry=retry))


def _compute(workplace: Workplace, context: JobContext) -> Outcome:
    """Run the stage's function and store its file."""
    held = context.claim
    with workplace.heartbeat.undisturbed():  # an interrupted import of torch ruins the process
        stage = _module(held.stage)
    if held.alone:
        _wait_for_host(workplace, held)
    params = _adapter(held.stage).validate_python(held.params)
    output: Output = stage.compute(params, context)
    file = context.store.write(output.tensors, held.writer) if output.tensors is not None else None
    return Outcome(file, output.rows, _peak_memory_bytes())


def _module(stage: str) -> ModuleType:
    try:
        return importlib.import_module(f"tasks.stages.{stage.replace('-', '_')}")
    except Exception as error:
        raise StageNotImported(f"{type(error).__name__}: {error}") from error


def _wait_for_host(workplace: Workplace, held: Claim) -> None:
    """Wait for the jobs that this host was executing when a measurement was claimed; no other one begins."""
    while others := read(workplace.engine, lambda session: others_on_host(session, held, workplace.worker)):
        log.info("job %s waits for %d other jobs on this host", held.job_id, others)
        # its deadline is for measuring, not for trainings that were here first
        write(workplace.engine, lambda session: begin_again(session, held))
        time.sleep(LOOK_SECONDS)


def _storable(text: str) -> str:
    """``text`` without what a text column refuses: NUL, and lone surrogates from odd file names."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


@cache
def _adapter(stage: str) -> TypeAdapter[StageParams]:
    """Built once per process: building takes longer than most validations."""
    return TypeAdapter(STAGES[stage])


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kilobytes
    return peak if sys.platform == "darwin" else peak * 1024


def register(app: Celery, workplace: Callable[[], Workplace]) -> None:
    """Register one task per stage, so that Flower reads well; all of them do the same."""

    def deliver(job_id: object) -> None:
        if type(job_id) is not int or not 0 < job_id <= LARGEST_JOB:  # True is an int to isinstance
            log.error("a message that names no job is dropped: %.80r", job_id)
            return
        try:
            here = workplace()
            with closing(drain(here, job_id)) as dispatches:
                for _ in dispatches:
                    ring(app, write(here.engine, top_up))
        except Unreachable as error:
            log.error("job %s: %s", job_id, error)  # the message is sent again from SQL

    for stage in STAGES:
        app.task(name=stage, shared=False)(deliver)  # in no other app of this process
