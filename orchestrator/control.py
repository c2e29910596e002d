"""What a user decides about a stored run: stop it, or try again what is missing."""

from rich.console import Console
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from db.engine import read, write
from db.models import JobState, RunState
from db.runs import cancel, other_codes, retry
from orchestrator.errors import UsageError
from orchestrator.progress import standing
from tasks.code import codes


def cancel_run(engine: Engine, run_id: int, console: Console) -> None:
    """Cancel what is not finished of a run; what is finished stays. Running jobs stop by themselves."""
    cancelled = write(engine, lambda session: cancel(session, run_id))
    now = standing(engine, run_id)
    if cancelled is None:
        console.print(f"Run {run_id} is not active, it {_ended(now.state)}. Nothing is cancelled.")
        return
    console.print(
        f"Run {run_id} is cancelled: {cancelled} jobs of {now.total}; {now.count(JobState.SUCCEEDED)} were done "
        f"and stay. Go on after all: orchestrator retry {run_id}"
    )


def retry_run(engine: Engine, run_id: int, console: Console) -> bool:
    """Bring back the failed, cancelled and skipped jobs of an ended run; False where there are none."""
    refuse_other_code(engine, run_id)
    try:
        jobs = write(engine, lambda session: retry(session, run_id))
    except IntegrityError:
        raise UsageError(
            f"another run of the same spec is active, run {run_id} cannot be. See: orchestrator status"
        ) from None
    if jobs:
        console.print(f"Run {run_id}: {jobs} jobs are tried again.")
    else:
        console.print(f"Run {run_id} {_ended(standing(engine, run_id).state)}. Nothing to try again.")
    return jobs > 0


def refuse_other_code(engine: Engine, run_id: int) -> None:
    """Refuse to go on with a run that was planned by other code: its results would be filed under wrong keys."""
    others = read(engine, lambda session: other_codes(session, run_id, codes()))
    if others:
        installed = {code.split()[0]: code for code in codes()}
        stage = others[0].split(" ")[0] if others[0] else ""
        raise UsageError(
            f"run {run_id} was planned by other code: '{others[0] or 'an older release'}', here is "
            f"'{installed.get(stage, 'another')}'. Submit it again: what is unchanged is found."
        )


def _ended(state: RunState) -> str:
    return {
        RunState.ACTIVE: "is active",
        RunState.SUCCEEDED: "has succeeded",
        RunState.FAILED: "has failed",
        RunState.CANCELLED: "was cancelled",
    }[state]
