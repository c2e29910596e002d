"""Runs of no-ops, stored without a plan: one INSERT … SELECT per table, whatever the number of jobs."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Engine,
    Integer,
    Select,
    String,
    cast,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from benchmarks.noop import NoOp
from db.clock import now
from db.engine import write
from db.models import Artifact, Attempt, Base, Dataset, Job, JobDependency, JobState, Run, RunState
from tasks.code import code_of


@dataclass(frozen=True)
class Shape:
    """``leaves`` jobs without inputs, read by ``middles`` jobs, which one job reads; or leaves alone."""

    leaves: int = 2000
    middles: int = 20

    def __post_init__(self) -> None:
        """Each middle reads as many leaves."""
        assert self.middles == 0 or self.leaves % self.middles == 0

    @property
    def jobs(self) -> int:
        """All jobs."""
        return self.leaves + (self.middles + 1 if self.middles else 0)


def store_run(engine: Engine, shape: Shape) -> int:
    """Store an active run of this shape; returns its number."""
    return write(engine, lambda session: _store_run(session, shape))


def store_past_run(engine: Engine, count: int) -> None:
    """Store a run that has ended, of ``count`` jobs that have succeeded, each with its attempt and artifact."""
    write(engine, lambda session: _store_past_run(session, count))


def _store_run(session: Session, shape: Shape) -> int:
    run_id, last = _new_run(session), _last_job(session)
    leaves, middles = shape.leaves, shape.middles
    _insert_jobs(session, run_id, last, leaves)
    if middles:
        root, number = last + leaves + middles + 1, _numbers(leaves)
        waiting = {"state": _state(JobState.WAITING), "waiting_for": literal(leaves // middles)}
        _insert_jobs(session, run_id, last + leaves, middles, **waiting)
        # leaf k of n is read by middle k mod m
        middle = last + leaves + 1 + (number.c.k - 1) % middles
        _insert_edges(session, select(middle, last + number.c.k, number.c.k // middles, true()))
        number = _numbers(middles)
        _insert_jobs(session, run_id, root - 1, 1, **waiting | {"waiting_for": literal(middles)})
        _insert_edges(session, select(literal(root), last + leaves + number.c.k, number.c.k, true()))
    _count_on(session, Job)
    return run_id


def _store_past_run(session: Session, count: int) -> None:
    run_id, last = _new_run(session), max(_last_job(session), _last_artifact(session))
    number, moment = last + _numbers(count).c.k, literal(session.scalar(select(now())))
    artifact = {"id": number, "key": _key(run_id, number), "stage": literal(NoOp.stage), "bytes": literal(0)}
    _insert(session, Artifact, artifact | {"created_at": moment})
    ended = {"state": _state(JobState.SUCCEEDED), "attempt": literal(1)}
    _insert_jobs(session, run_id, last, count, **ended)
    # the same number for both
    session.execute(update(Job).where(Job.run_id == run_id).values(artifact_id=Job.id))
    attempt = {"job_id": number, "attempt": literal(1), "worker": literal("worker@host")}
    attempt |= {"host": literal("host"), "process": literal(1), "outcome": literal("succeeded")}
    _insert(session, Attempt, attempt | {"started_at": moment, "finished_at": moment})
    session.execute(update(Run).where(Run.id == run_id).values(state=RunState.SUCCEEDED, finished_at=now()))
    _count_on(session, Job, Artifact)


def _new_run(session: Session) -> int:
    if session.get(Dataset, 1) is None:
        session.add(Dataset(id=1, digest="d", uri="u", classes=[], ignored_files=0, built_in=True))
        session.flush()
    number = (session.scalar(select(func.max(Run.id))) or 0) + 1
    run = Run(identity=str(number), plan="noop", profile="noop", spec={}, code_version="", environment={})
    run.dataset_id, run.state, run.created_at = 1, RunState.ACTIVE, session.scalar(select(now()))
    session.add(run)
    session.flush()
    return run.id


def _last_job(session: Session) -> int:
    return session.scalar(select(func.max(Job.id))) or 0


def _last_artifact(session: Session) -> int:
    return session.scalar(select(func.max(Artifact.id))) or 0


def _insert_jobs(session: Session, run_id: int, last: int, count: int, **columns: Any) -> None:
    """``count`` jobs numbered from ``last`` + 1, ready unless ``columns`` says otherwise."""
    number = last + _numbers(count).c.k
    values = {
        "id": number,
        "run_id": literal(run_id),
        "stage": literal(NoOp.stage),
        "label": literal("no-op"),
        "key": _key(run_id, number),
        "code": literal(code_of(NoOp.stage)),
        "params": literal({}, Job.__table__.c.params.type),
        "queue": literal("cpu"),
        "state": _state(JobState.READY),
        "deadline_seconds": literal(NoOp.deadline_seconds),
        **columns,
    }
    _insert(session, Job, values)


def _insert_edges(session: Session, edges: Select[Any]) -> None:
    columns = ["child_id", "parent_id", "position", "reads"]
    session.execute(insert(JobDependency).from_select(columns, edges))


def _insert(session: Session, table: type[Base], values: dict[str, ColumnElement[Any]]) -> None:
    session.execute(insert(table).from_select(list(values), select(*values.values())))


def _numbers(count: int) -> CTE:
    """1 to ``count`` as column ``k``: SQLite has no generate_series."""
    numbers = select(literal(1, Integer).label("k")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.k + 1).where(numbers.c.k < count))


def _key(run_id: int, number: ColumnElement[int]) -> ColumnElement[str]:
    """64 characters, as a real key has, or a few more."""
    return literal(f"{run_id:056}") + cast(number, String)


def _state(state: JobState) -> ColumnElement[Any]:
    return literal(state, Job.__table__.c.state.type)


def _count_on(session: Session, *tables: type[Base]) -> None:
    """Let Postgres' sequences go on after the numbers that were given here."""
    if session.get_bind().dialect.name == "postgresql":
        for table in tables:
            sequence = func.pg_get_serial_sequence(table.__tablename__, "id")
            session.execute(select(func.setval(sequence, select(func.max(table.id)).scalar_subquery())))
