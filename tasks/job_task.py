"""One delivery of a message: claim the job, compute it with no transaction open, finish, dispatch the next."""

import importlib
import logging
import resource
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType

from billiard.common import terminate_handler_fired
from celery import Celery
from pydantic import TypeAdapter
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from db.artifacts import ArtifactStore
from db.dispatch import Doorbell, top_up
from db.engine import Unreachable, read, write
from db.jobs import Claim, Outcome, Worker, claim, fail, finish, put_back, wanted_code
from db.recovery import repair
from early_exit.errors import Diverged
from tasks.doorbell import ring
from tasks.heartbeat import Heartbeat, LeaseLost
from tasks.job_io import InputBad, JobContext, Output, Refused
from tasks.params import STAGES, StageParams

log = logging.getLogger(__name__)

LARGEST_JOB = 2**31 - 1
"""What the column holds; the database would raise for a larger number in a message."""


@dataclass(frozen=True)
class Workplace:
    """Where a worker finds its jobs and keeps what it makes."""

    engine: Engine
    store: ArtifactStore
    worker: Worker
    watched: bool
    """Whether a job that hangs may end this process."""


def run_job(workplace: Workplace, job_id: int) -> list[Doorbell]:
    """Execute one job if it can be claimed; returns the messages to send next."""
    try:
        held = write(workplace.engine, lambda session: claim(session, job_id, workplace.worker))
    except IntegrityError:
        held = None  # another run's live attempt computes this key
    if held is not None:
        _attempt(workplace, held)
    else:
        _tell_of_other_code(workplace, job_id)
    # in any case: every delivery sends what has become ready meanwhile
    return write(workplace.engine, partial(top_up, codes=workplace.worker.codes))


def _tell_of_other_code(workplace: Workplace, job_id: int) -> None:
    code = read(workplace.engine, lambda session: wanted_code(session, job_id))
    if code is not None and code not in workplace.worker.codes:
        log.warning("job %s needs other code than this worker has: '%s'", job_id, code)


def _attempt(workplace: Workplace, held: Claim) -> None:
    engine, store = workplace.engine, workplace.store
    context = JobContext(held, engine, store)
    try:
        with Heartbeat(engine, held, watched=workplace.watched) as heartbeat:
            with heartbeat.undisturbed():  # an interrupted import of torch ruins the process
                module = importlib.import_module(f"tasks.stages.{held.stage.replace('-', '_')}")
            outcome = _compute(context, module)
        if write(engine, lambda session: finish(session, held, outcome)):
            context.checkpoint.delete()
        else:
            log.warning("job %s attempt %s is fenced out: discarded", held.job_id, held.attempt)
    except LeaseLost:
        log.warning("job %s attempt %s lost its lease: stopped, discarded", held.job_id, held.attempt)
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, SystemExit) and not terminate_handler_fired():  # raised by the stage itself
            _fail(workplace, held, f"SystemExit: {error}", retry=True)
            return
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
        _fail(workplace, held, f"{type(error).__name__}: {error}", retry=True)


def _fail(workplace: Workplace, held: Claim, error: str, *, retry: bool) -> None:
    # one line for tables; the trace has the rest
    reason, trace = _storable(error.splitlines()[0]), _storable(traceback.format_exc())
    log.warning("job %s (%s %s): %s", held.job_id, held.stage, held.label, reason)
    write(workplace.engine, lambda session: fail(session, held, reason, trace, retry=retry))


def _compute(context: JobContext, stage: ModuleType) -> Outcome:
    """Run the stage's function and store its file."""
    held = context.claim
    params = _adapter(held.stage).validate_python(held.params)
    output: Output = stage.compute(params, context)
    file = context.store.write(output.tensors, held.writer) if output.tensors is not None else None
    return Outcome(file, output.rows, _peak_memory_bytes())


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
            ring(app, run_job(workplace(), job_id))
        except Unreachable as error:
            log.error("job %s: %s", job_id, error)  # the message is sent again from SQL

    for stage in STAGES:
        app.task(name=stage, shared=False)(deliver)  # in no other app of this process
