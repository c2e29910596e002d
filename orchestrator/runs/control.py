"""What a user decides about a stored run: stop it, or try again what is missing."""

from sqlalchemy.exc import IntegrityError

from db.engine import read, write
from db.models import JobState, RunState
from db.runs import cancel, other_codes, retry
from orchestrator.context import Context
from orchestrator.errors import UsageError
from orchestrator.runs.progress import standing
from tasks.code import codes


def cancel_run(context: Context, run_id: int) -> None:
    """Cancel what is not finished of a run; what is finished stays. Running jobs stop by themselves."""
    console = context.console
    cancelled = write(context.engine, lambda session: cancel(session, run_id))
    now = standing(context.engine, run_id)
    if cancelled is None:
        console.print(f"Run {run_id} {_ended(now.state)}; nothing is left to cancel.")
        return
    console.print(
        f"Run {run_id} is cancelled: {cancelled} jobs of {now.total}; {now.count(JobState.SUCCEEDED)} were done "
        f"and stay. Go on after all: orchestrator retry {run_id}"
    )


def retry_run(context: Context, run_id: int) -> bool:
    """Bring back the failed, cancelled and skipped jobs of an ended run; False where nothing is to run."""
    try:
        jobs = write(context.engine, lambda session: retry(session, run_id))
    except IntegrityError:
        raise UsageError(
            f"another run of the same spec is active, run {run_id} cannot be. See: orchestrator status"
        ) from None
    state = standing(context.engine, run_id).state
    if jobs:
        context.console.print(f"Run {run_id}: {jobs} jobs are tried again.")
    else:
        context.console.print(f"Run {run_id} {_ended(state)}; nothing is left to try again.")
    return state == RunState.ACTIVE


def refuse_other_code(context: Context, run_id: int) -> None:
    """Refuse to compute a run here that was planned by other code: results would be filed under wrong keys.

    On a shared cluster its workers compute it, and leave alone what is not their code's.
    """
    if context.place.home is None:
        return
    others = read(context.engine, lambda session: other_codes(session, run_id, codes()))
    if others:
        installed = {code.split()[0]: code for code in codes()}
        stage = others[0].split(" ")[0]
        raise UsageError(
            f"run {run_id} was planned by other code: '{others[0]}', here is "
            f"'{installed.get(stage, 'another')}'. Submit it again, what is unchanged is found; "
            f"`orchestrator cancel {run_id}` ends this one."
        )


def _ended(state: RunState) -> str:
    return {
        RunState.ACTIVE: "is active",
        RunState.SUCCEEDED: "has succeeded",
        RunState.FAILED: "has failed",
        RunState.CANCELLED: "was cancelled",
    }[state]
