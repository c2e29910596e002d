"""The stage ``noop``, which does nothing, and runs of it that are stored without a plan."""

import sys
from dataclasses import dataclass

from sqlalchemy import Engine, Integer, String, cast, func, insert, literal, literal_column, select, text
from sqlalchemy.orm import Session

import tasks.stages
from db.clock import now
from db.engine import write
from db.models import Dataset, Job, JobDependency, JobState, Run, RunState
from tasks.code import code_of
from tasks.job_io import JobContext, Output
from tasks.params import STAGES, StageParams


@dataclass(frozen=True)
class NoOp(StageParams):
    """Nothing at all."""

    stage = "noop"
    version = 1
    libraries = ()
    writes_rows = False
    deadline_seconds = 600


def compute(params: NoOp, context: JobContext) -> Output:
    """Neither a file nor rows."""
    return Output()


def install() -> None:
    """Let this process compute no-ops: this file is the stage's module."""
    STAGES[NoOp.stage] = NoOp
    sys.modules["tasks.stages.noop"] = tasks.stages.noop = sys.modules[__name__]


install()


@dataclass(frozen=True)
class Shape:
    """``leaves`` jobs without inputs, read by ``middles`` jobs, read by one; or leaves alone."""

    leaves: int = 2000
    middles: int = 20

    def __post_init__(self) -> None:
        """As many leaves for each middle."""
        assert self.middles == 0 or self.leaves % self.middles == 0

    @property
    def jobs(self) -> int:
        """All jobs."""
        return self.leaves + (self.middles + 1 if self.middles else 0)


def store_run(engine: Engine, shape: Shape) -> int:
    """Store a run of this shape in one transaction, by INSERT … SELECT; returns its number."""
    return write(engine, lambda session: _store(session, shape))


def _store(session: Session, shape: Shape) -> int:
    run_id = _new_run(session)
    last = session.scalar(select(func.max(Job.id))) or 0
    leaves, middles = shape.leaves, shape.middles
    _insert_jobs(session, run_id, last, leaves, waiting_for=0)
    if middles:
        # leaf k of n is read by middle k mod m
        number = _numbers(leaves)
        child = last + leaves + 1 + (number.c.k - 1) % middles
        _insert_jobs(session, run_id, last + leaves, middles, waiting_for=leaves // middles)
        _insert_edges(session, select(child, last + number.c.k, (number.c.k - 1) / middles))
        root = last + leaves + middles + 1
        number = _numbers(middles)
        _insert_jobs(session, run_id, root - 1, 1, waiting_for=middles)
        _insert_edges(session, select(literal(root), last + leaves + number.c.k, number.c.k - 1))
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            text("SELECT setval(pg_get_serial_sequence('jobs', 'id'), (SELECT max(id) FROM jobs))")
        )
    return run_id


def _numbers(count: int):
    """1 to ``count`` as column ``k``, on both databases."""
    numbers = select(literal(1, Integer).label("k")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.k + 1).where(numbers.c.k < count))


def _new_run(session: Session) -> int:
    if session.get(Dataset, 1) is None:
        session.add(Dataset(id=1, digest="d", uri="u", classes=[], ignored_files=0, built_in=True))
        session.flush()
    number = (session.scalar(select(func.max(Run.id))) or 0) + 1
    run = Run(
        identity=str(number),
        plan="noop",
        profile="noop",
        spec={},
        code_version="",
        environment={},
        dataset_id=1,
        created_at=session.scalar(select(now())),
        state=RunState.ACTIVE,
    )
    session.add(run)
    session.flush()
    return run.id


def _insert_jobs(session: Session, run_id: int, last: int, count: int, *, waiting_for: int) -> None:
    number = _numbers(count)
    values = {
        "id": last + number.c.k,
        "run_id": literal(run_id),
        "stage": literal(NoOp.stage),
        "label": literal("no-op"),
        "key": literal(f"{run_id:064}-") + cast(last + number.c.k, String),
        "code": literal(code_of(NoOp.stage)),
        "params": literal({}, Job.__table__.c.params.type),
        "queue": literal("cpu"),
        "state": literal(JobState.WAITING if waiting_for else JobState.READY, Job.__table__.c.state.type),
        "waiting_for": literal(waiting_for),
        "deadline_seconds": literal(NoOp.deadline_seconds),
    }
    session.execute(insert(Job).from_select(list(values), select(*values.values())))


def _insert_edges(session: Session, edges) -> None:
    columns = ["child_id", "parent_id", "position", "reads"]
    session.execute(insert(JobDependency).from_select(columns, edges.add_columns(literal_column("true"))))
