"""The stored runs, and which of them a command refers to."""

from rich.table import Table
from sqlalchemy import Engine, case, func, select

from db.engine import reading
from db.models import Job, JobState, Run, RunState
from orchestrator.errors import UsageError


def existing(engine: Engine, run: int | None) -> int:
    """``run`` if it exists, the newest run for None; otherwise raises ``UsageError``."""
    with reading(engine) as session:
        newest = session.scalar(select(func.max(Run.id)))
        # within the same transaction, so that a run that is just being stored is in both answers or in
        # neither
        known = session.get(Run, run) if run is not None else None
    if newest is None:
        raise UsageError("no runs yet. Start one: orchestrator submit full-paper")
    if run is not None and known is None:
        raise UsageError(f"no run {run}. `orchestrator status` lists all runs, up to {newest}.")
    return run if run is not None else newest


def active_or_newest(engine: Engine, run: int | None) -> int:
    """Like ``existing``, but for None the newest active run if there is one."""
    if run is None:
        with reading(engine) as session:
            run = session.scalar(select(func.max(Run.id)).where(Run.state == RunState.ACTIVE))
    return existing(engine, run)


def runs(engine: Engine) -> Table:
    """All runs, with how many of their jobs are done."""
    shown = Table(title="Runs", title_justify="left")
    for column in ("run", "plan", "profile", "state", "done", "jobs"):
        shown.add_column(column)
    done = func.sum(case((Job.state == JobState.SUCCEEDED, 1), else_=0))
    statement = (
        select(Run.id, Run.plan, Run.profile, Run.state, done, func.count(Job.id))
        .join(Job, Job.run_id == Run.id)
        .group_by(Run.id)
        .order_by(Run.id)
    )
    with reading(engine) as session:
        for row in session.execute(statement):
            shown.add_row(*(str(cell) for cell in row))
    return shown
