"""Whose turn it is: active runs share the workers by weighted round-robin, within their limits."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, bindparam, func, or_, select
from sqlalchemy.orm import Session

from db.engine import execute
from db.models import Job, JobState, Run, in_state, is_active

ALL_STAGES = ""
"""The key in ``runs.limits`` of the limit on all stages together."""


class ActiveRun(NamedTuple):
    """A run that has not ended: its weight, and how many of its jobs may run at once by stage."""

    id: int
    priority: int
    limits: dict[str, int]


_ACTIVE = select(Run.id, Run.priority, Run.limits).where(is_active()).order_by(Run.id)
_LOCKED = select(Run.id).where(Run.id == bindparam("run")).with_for_update(key_share=True)
_LIVE = (
    select(Job.stage, func.count())
    .where(Job.run_id == bindparam("run"), or_(in_state(JobState.RUNNING), Job.state == bindparam("also")))
    .group_by(Job.stage)
)


def of_run(job: Any) -> tuple[ColumnElement[bool], ...]:
    """Whether a job is of the parameter ``run``.

    As a range, and then ordered by run and number: where all jobs are of one run, Postgres would rather read them in
    the order of the primary key, past all that have ended.
    """
    return job.run_id >= bindparam("run"), job.run_id <= bindparam("run")


def active_shares(session: Session) -> list[ActiveRun]:
    """All active runs, oldest first."""
    return [ActiveRun(*row) for row in execute(session, _ACTIVE)]


def room(session: Session, run: ActiveRun, *, queued: bool = False) -> dict[str, int]:
    """How many more jobs may run, by stage, of those stages that have a limit; ``queued`` ones count as running.

    Of two that ask at once the second waits for the first to commit, so that both together keep to the limit. The run
    is locked before its jobs, against the order of all other transitions: a deadlock with one of them is tried again.
    """
    if not run.limits:
        return {}
    execute(session, _LOCKED, run=run.id).all()
    also = JobState.QUEUED if queued else JobState.RUNNING
    live: dict[str, int] = dict(iter(execute(session, _LIVE, run=run.id, also=also)))
    live[ALL_STAGES] = sum(live.values())
    return {stage: max(0, limit - live.get(stage, 0)) for stage, limit in run.limits.items()}


@dataclass
class Turns:
    """One process's turns. Smooth weighted round-robin: over any period a run is served by its weight."""

    runs: list[ActiveRun] = field(default_factory=list)
    _credits: dict[int, int] = field(default_factory=dict)

    def look(self, session: Session) -> None:
        """See which runs are active now; a run that is new or back begins without credit."""
        self.runs = active_shares(session)
        self._credits = {run.id: self._credits.get(run.id, 0) for run in self.runs}

    def __iter__(self) -> Iterator[ActiveRun]:
        """Whose turn it is first, the others after it; say ``served`` for the one that had a job."""
        return iter(sorted(self.runs, key=lambda run: (-self._credits[run.id] - run.priority, run.id)))

    def served(self, run_id: int) -> None:
        """A job of this run was taken: every run gains its weight, and this one pays for all."""
        if run_id not in self._credits:
            return
        for run in self.runs:
            self._credits[run.id] += run.priority
        self._credits[run_id] -= sum(run.priority for run in self.runs)
