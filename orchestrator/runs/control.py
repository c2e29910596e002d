"""Cancel a stored run, or retry what it is missing."""

from sqlalchemy.exc import IntegrityError

from db.engine import read, write
from db.models import JobState, RunState
from db.runs import cancel, other_codes, retry
from orchestrator.context import Context
from orchestrator.errors import UsageError
from orchestrator.runs.progress import standing
from tasks.code import codes


def cancel_run(context: Context, run_id: int) -> None:
    """Cancel a run's unfinished jobs; finished ones are kept. Running jobs notice and stop."""
    console = context.console
    cancelled = write(context.engine, lambda session: cancel(session, run_id))
    now = standing(context.engine, run_id)
    if cancelled is None:
        console.print(f"Run {run_id} {_ended(now.state)}; there is nothing to cancel.")
        return
    console.print(
        f"Run {run_id} is cancelled: {cancelled} jobs of {now.total}; {now.count(JobState.SUCCEEDED)} were done "
        f"and are kept. To continue it after all: orchestrator retry {run_id}"
    )


def retry_run(context: Context, run_id: int) -> bool:
    """Requeue the failed, cancelled and skipped jobs of an ended run; False if there is nothing to run."""
    try:
        jobs = write(context.engine, lambda session: retry(session, run_id))
    # the partial unique index over active runs; a check beforehand could be overtaken
    except IntegrityError:
        raise UsageError(
            f"another run of the same spec is active, so run {run_id} cannot be retried. See: orchestrator status"
        ) from None
    state = standing(context.engine, run_id).state
    if jobs:
        context.console.print(f"Run {run_id}: {jobs} jobs will be retried.")
    else:
        context.console.print(f"Run {run_id} {_ended(state)}; there is nothing to retry.")
    return state == RunState.ACTIVE


def refuse_other_code(context: Context, run_id: int) -> None:
    """Refuse to compute a run that was planned by other code: its results would be stored under the wrong keys.

    A shared cluster needs no such check: workers there only take jobs of their own code.
    """
    if context.place.home is None:
        return
    others = read(context.engine, lambda session: other_codes(session, run_id, codes()))
    if others:
        installed = {code.split()[0]: code for code in codes()}
        stage = others[0].split(" ")[0]
        raise UsageError(
            f"run {run_id} was planned by other code: '{others[0]}', here is "
            f"'{installed.get(stage, 'another')}'. Submit it again, unchanged jobs are reused; "
            f"`orchestrator cancel {run_id}` ends this one."
        )


def _ended(state: RunState) -> str:
    return {
        RunState.ACTIVE: "is active",
        RunState.SUCCEEDED: "has succeeded",
        RunState.FAILED: "has failed",
        RunState.CANCELLED: "was cancelled",
    }[state]
