"""Live progress of a run by stage: a table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.live import Live
from rich.table import Table
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from db.engine import read, reading
from db.models import PUT_BACK, Job, JobState, Run, RunState
from db.runs import progress
from orchestrator.context import Context

POLL_SECONDS = 0.5
LOOKING = 0.05
"""The part of its time that a watcher may spend looking: of a large run it looks less often."""
PLAIN_SECONDS = 30.0
SILENT_SECONDS = 30.0
"""If no job of a run has been running for this long, say what its jobs wait for."""

Counts = dict[str, dict[JobState, int]]


@dataclass(frozen=True)
class Standing:
    """A run's state and its jobs by stage and state."""

    state: RunState
    counts: Counts

    @property
    def total(self) -> int:
        """All jobs of the run."""
        return sum(sum(states.values()) for states in self.counts.values())

    def count(self, state: JobState) -> int:
        """Jobs in one state, over all stages."""
        return sum(states.get(state, 0) for states in self.counts.values())

    @property
    def warning(self) -> str:
        """A caveat to print before any results; empty for a run that succeeded."""
        done = f"{self.count(JobState.SUCCEEDED)} of {self.total} jobs are done"
        match self.state:
            case RunState.ACTIVE:
                return f"This run is not finished: {done}. What is shown may change."
            case RunState.FAILED:
                return f"This run failed: {done}. What is shown is what could be computed."
            case RunState.CANCELLED:
                return f"This run was cancelled: {done}. What is shown is what was computed before."
            case _:
                return ""


def standing(engine: Engine, run_id: int) -> Standing:
    """The current state of a run and of its jobs."""

    def look(session: Session) -> Standing:
        state = session.scalars(select(Run.state).where(Run.id == run_id)).one()
        return Standing(state, progress(session, run_id))

    return read(engine, look)


def failures(engine: Engine, run_id: int, most: int | None = None) -> list[str]:
    """One line per failed job: stage, label and why."""
    statement = (
        select(Job.stage, Job.label, Job.error)
        .where(Job.run_id == run_id, Job.state == JobState.FAILED)
        .order_by(Job.id)
        .limit(most)
    )
    with reading(engine) as session:
        return [f"failed: {stage} ({label}): {error}" for stage, label, error in session.execute(statement)]


def watch(context: Context, run_id: int, keep_alive: Callable[[], None]) -> Standing:
    """Show a run's progress until it has ended; calls ``keep_alive`` at every poll."""
    started, console = time.monotonic(), context.console
    if console.is_terminal:
        # refreshed by the poll alone, so that there is no second thread
        with Live(console=console, auto_refresh=False, transient=True) as live:
            return _follow(
                context, run_id, keep_alive, lambda now: live.update(table(run_id, now), refresh=True)
            )
    # so that the first line is printed at once
    last = started - PLAIN_SECONDS

    def print_line(now: Standing) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            console.print(_line(run_id, now, last - started), soft_wrap=True)

    return _follow(context, run_id, keep_alive, print_line)


def _follow(
    context: Context,
    run_id: int,
    keep_alive: Callable[[], None],
    show: Callable[[Standing], None],
) -> Standing:
    busy = time.monotonic()
    while True:
        began = time.monotonic()
        now = standing(context.engine, run_id)
        took = time.monotonic() - began
        show(now)
        if now.count(JobState.RUNNING):
            busy = time.monotonic()
        elif time.monotonic() - busy > SILENT_SECONDS:
            busy = time.monotonic()
            for line in (*unclaimed(context.engine, run_id), *machine_faults(context.engine, run_id)):
                context.console.print(line, markup=False, soft_wrap=True)
        if now.state != RunState.ACTIVE:
            return now
        keep_alive()
        time.sleep(max(POLL_SECONDS, took / LOOKING))


def machine_faults(engine: Engine, run_id: int) -> list[str]:
    """Why jobs of a run were put back by machines that could not execute them, one line per machine and reason."""
    statement = (
        select(Job.error, func.count())
        .where(Job.run_id == run_id, Job.state.in_((JobState.READY, JobState.QUEUED)))
        .where(Job.error.startswith(PUT_BACK))
        .group_by(Job.error)
        .order_by(Job.error)
    )
    found = read(engine, lambda session: session.execute(statement).all())
    return [f"{count} jobs will run again, {error}" for error, count in found]


def unclaimed(engine: Engine, run_id: int) -> list[str]:
    """What the queued jobs of a run wait for, one line per queue and code."""
    statement = (
        select(Job.queue, Job.code, func.count())
        .where(Job.run_id == run_id, Job.state == JobState.QUEUED)
        .group_by(Job.queue, Job.code)
        .order_by(Job.queue, Job.code)
    )
    found = read(engine, lambda session: session.execute(statement).all())
    return [
        f"{count} jobs wait for a worker of queue '{queue}' with this code: {code}"
        for queue, code, count in found
    ]


COLUMNS = {
    "done": (JobState.SUCCEEDED,),
    "running": (JobState.RUNNING,),
    "queued": (JobState.QUEUED, JobState.READY),
    "waiting": (JobState.WAITING,),
    "failed": (JobState.FAILED,),
    "cancelled": (JobState.CANCELLED,),
    "skipped": (JobState.SKIPPED,),
}
RARE = ("cancelled", "skipped")
"""Columns that are left out when empty."""


def table(run_id: int, now: Standing) -> Table:
    """Jobs of each stage by state."""
    columns = {
        heading: states
        for heading, states in COLUMNS.items()
        if heading not in RARE or any(map(now.count, states))
    }
    shown = Table(title=f"Run {run_id}: {now.count(JobState.SUCCEEDED)} of {now.total} jobs done")
    shown.add_column("stage")
    for heading in (*columns, "jobs"):
        shown.add_column(heading, justify="right")
    for stage, counts in now.counts.items():
        numbers = [sum(counts.get(state, 0) for state in states) for states in columns.values()]
        shown.add_row(stage, *(str(number) if number else "·" for number in (*numbers, sum(counts.values()))))
    return shown


def _line(run_id: int, now: Standing, seconds: float) -> str:
    running = [stage for stage, states in now.counts.items() if states.get(JobState.RUNNING)]
    what = f", running {', '.join(running)}" if running else ""
    return (
        f"run {run_id}: {now.count(JobState.SUCCEEDED)} of {now.total} jobs done after {seconds:.0f} s{what}"
    )
