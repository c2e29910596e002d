"""Follow a run: keep its cluster running, show progress, and report once it has ended."""

from db.engine import reading
from db.models import JobState, RunState
from db.runs import working_runs
from orchestrator.cluster.client import KeepAlive, stop_supervisor, wait_until_idle
from orchestrator.context import Context
from orchestrator.errors import ExitCode
from orchestrator.locks import clients_lock, is_held, lock, up_lock
from orchestrator.results.formats import print_table
from orchestrator.results.layouts import HEADLINE
from orchestrator.results.tables import tables
from orchestrator.runs.progress import Standing, failures, standing, watch
from tasks.code import codes

SHOWN_FAILURES = 10
IDLE_SECONDS = 60.0


def attend(context: Context, run_id: int) -> ExitCode:
    """Watch a run until it has ended, then report it. Ctrl-C detaches and keeps the run."""
    place, console = context.place, context.console
    if place.home is None:
        try:
            return report(context, run_id, watch(context, run_id, lambda: None))
        except KeyboardInterrupt:
            return _detach(context, run_id, "It continues without this command. Watch it again")
    interrupted, keep_alive = False, KeepAlive(place, console)
    with lock(clients_lock(place.home), shared=True):
        try:
            ended = watch(context, run_id, keep_alive)
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        # after our own lock is gone: whoever holds it now is another client
        if not is_held(clients_lock(place.home)) and not is_held(up_lock(place.home)):
            console.print("Stopping the workers …")
            stop_supervisor(place, keep_alive.started)
        return _detach(context, run_id, "Resume it")
    code = report(context, run_id, ended)
    with reading(context.engine) as session:
        others = working_runs(session, codes())
    if others:
        console.print(f"Still active in the background: run {', '.join(map(str, others))}.")
    elif not is_held(up_lock(place.home)):
        wait_until_idle(place, IDLE_SECONDS)
    return code


def _detach(context: Context, run_id: int, what: str) -> ExitCode:
    now = standing(context.engine, run_id)
    done = now.count(JobState.SUCCEEDED)
    context.console.print(
        f"Run {run_id} is kept, {done} of {now.total} jobs done. {what}: orchestrator resume {run_id}"
    )
    return ExitCode.DETACHED


def report(context: Context, run_id: int, ended: Standing) -> ExitCode:
    """Print a run's tables, its failures and what to type next."""
    engine, console = context.engine, context.console
    with reading(engine) as session:
        found = tables(session, run_id, HEADLINE)
    for result in found:
        print_table(result.grid(), console)
    for line in failures(engine, run_id, SHOWN_FAILURES):
        console.print(line, style="red", markup=False, soft_wrap=True)
    counts = {state: ended.count(state) for state in JobState if ended.count(state)}
    console.print(
        f"Run {run_id} {ended.state}: " + ", ".join(f"{number} {state}" for state, number in counts.items())
    )
    if ended.state in (RunState.FAILED, RunState.CANCELLED):
        console.print(f"Retry what is missing: orchestrator retry {run_id}")
    database = engine.url.database if context.place.home else engine.url.render_as_string()
    console.print(f"Database: {database}", soft_wrap=True)
    console.print(f"Next: orchestrator results {run_id} · orchestrator status {run_id}")
    console.print("      orchestrator sql 'select * from accuracy where run = (select run from latest_run)'")
    if ended.state == RunState.SUCCEEDED:
        return ExitCode.DONE
    return ExitCode.SOME_FAILED if found else ExitCode.NO_RESULT
