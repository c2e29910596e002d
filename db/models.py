"""Tables of the engine: runs, jobs, their dependencies and attempts, artifacts, datasets.

Times are seconds since 1970 UTC by the database's clock. Results have tables of their own in
``db.results.tables``.
"""

from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Enum,
    ForeignKey,
    Index,
    UniqueConstraint,
    exists,
    false,
    literal_column,
    or_,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column


class RunState(StrEnum):
    """Where a run stands."""

    ACTIVE = "active"
    """Some of its jobs have not ended."""
    SUCCEEDED = "succeeded"
    """Every job has its artifact."""
    FAILED = "failed"
    """Every job has ended; some failed or were skipped."""
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """Where a job stands, and what moves it on."""

    WAITING = "waiting"
    """For ``waiting_for`` parents; the last of them to finish makes it ready."""
    READY = "ready"
    """Dispatch queues it, within the window of its run and queue."""
    QUEUED = "queued"
    """Its message was sent; a worker claims it."""
    RUNNING = "running"
    """One attempt holds it until ``lease_until``; the attempt finishes it, or the lease expires."""
    SUCCEEDED = "succeeded"
    """Ended; waiting again only when a reader finds its artifact bad."""
    FAILED = "failed"
    """Ended: it raised, or lost its workers, as often as is allowed."""
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """An upstream job failed; waiting again when that one is retried."""


PUT_BACK = "put back by "
"""How the error of a job begins that a machine could not execute, and that is not to blame for it."""

OPEN = (JobState.WAITING, JobState.READY, JobState.QUEUED, JobState.RUNNING)


def _states(of: type[StrEnum]) -> Enum:
    return Enum(
        of,
        # text with a CHECK, so that both databases store the same
        native_enum=False,
        create_constraint=True,
        length=16,
        name=of.__name__.lower(),
        # by default SQLAlchemy stores the names, in capitals; views and partial indexes compare the values
        values_callable=lambda states: [state.value for state in states],
    )


def _partial(name: str, state: StrEnum, *columns: str, unique: bool = False) -> Index:
    """An index of the rows in one state."""
    rows = text(f"state = '{state}'")
    return Index(name, *columns, unique=unique, sqlite_where=rows, postgresql_where=rows)


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map: ClassVar = {
        dict[str, Any]: JSON,
        list[str]: JSON,
        RunState: _states(RunState),
        JobState: _states(JobState),
    }


class Dataset(Base):
    """A folder of images at one state of its content."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("digest", "uri"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str]
    uri: Mapped[str]
    """Where workers read it."""
    classes: Mapped[list[str]]
    ignored_files: Mapped[int]
    built_in: Mapped[bool]


class Image(Base):
    """One image file of a dataset."""

    __tablename__ = "images"

    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    label: Mapped[int]
    split: Mapped[str]
    sha256: Mapped[str]
    # Postgres' INTEGER ends at 2 GB
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)


IMAGE_FILE_COLUMNS = (
    Image.index,
    Image.path,
    Image.label,
    Image.split,
    Image.sha256,
    Image.size,
    Image.mtime_ns,
)
"""What describes the file itself, in the order of ``early_exit.dataset.ImageFile``."""


class Run(Base):
    """One submission: its resolved spec and where it stands."""

    __tablename__ = "runs"
    __table_args__ = (
        _partial("one_active_run_per_identity", RunState.ACTIVE, "identity", unique=True),
        CheckConstraint("(state = 'active') = (finished_at IS NULL)", name="ended_runs_have_a_time"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    identity: Mapped[str]
    """SHA-256 of (resolved spec, dataset digest, stage versions, library releases)."""
    plan: Mapped[str]
    profile: Mapped[str]
    spec: Mapped[dict[str, Any]]
    state: Mapped[RunState] = mapped_column(default=RunState.ACTIVE)
    code_version: Mapped[str]
    priority: Mapped[int] = mapped_column(default=1, server_default="1")
    """Its weight: active runs share the workers in proportion."""
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    """How many of its jobs may run at once, by stage; under ``""`` of all stages together."""
    environment: Mapped[dict[str, Any]]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class Artifact(Base):
    """The immutable output of one key: a file, rows, or both."""

    __tablename__ = "artifacts"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    """The key it was made for; a row set aside has a suffix, so that the key is free again."""
    stage: Mapped[str]
    uri: Mapped[str | None]
    sha256: Mapped[str | None]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float]


class Job(Base):
    """One stored call of a task in one run."""

    __tablename__ = "jobs"
    __table_args__ = (
        # what is read at every end of a job has a partial index, whose size follows what is going on and not
        # what is stored: dispatch in plan order, a worker's next job of the same stage, messages that may be
        # lost, leases
        _partial("ready_jobs", JobState.READY, "queue", "run_id", "id"),
        _partial("ready_jobs_by_stage", JobState.READY, "queue", "stage", "run_id", "id"),
        _partial("queued_jobs", JobState.QUEUED, "run_id", "queue", "dispatched_at"),
        _partial("running_jobs", JobState.RUNNING, "lease_until"),
        # nearly always empty, and asked at every claim
        Index(
            "running_alone",
            "id",
            sqlite_where=text("state = 'running' AND alone = 1"),
            postgresql_where=text("state = 'running' AND alone"),
        ),
        # progress is counted from this index alone
        Index("jobs_by_run", "run_id", "state", "stage", "id"),
        # for repair, which looks for every job that shares a bad artifact
        Index("jobs_by_key", "key"),
        _partial("one_running_job_per_key", JobState.RUNNING, "key", unique=True),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="running_jobs_have_a_lease"),
        CheckConstraint("waiting_for >= 0", name="counters_never_fall_below_zero"),
        CheckConstraint("state <> 'ready' OR waiting_for = 0", name="ready_jobs_wait_for_nothing"),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_jobs_say_why"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    stage: Mapped[str]
    label: Mapped[str]
    key: Mapped[str]
    code: Mapped[str]
    """Stage version and library releases that the key holds; a worker leaves jobs of other code alone."""
    # seeds go up to 2**32 - 1, further than Postgres' INTEGER
    seed: Mapped[int | None] = mapped_column(BigInteger)
    fidelity: Mapped[str | None]
    """With ``seed``: which of the run's variants a result stands under; NULL for what they share."""
    params: Mapped[dict[str, Any]]
    queue: Mapped[str]
    state: Mapped[JobState]
    cached: Mapped[bool] = mapped_column(default=False)
    """Not computed for this run: its artifact was there, or nothing that must run reads it."""
    artifact_id: Mapped[int | None] = mapped_column(ForeignKey("artifacts.id"))
    waiting_for: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    token: Mapped[int | None] = mapped_column(BigInteger)
    """The fencing token, drawn at random by the claim: a write of another attempt changes nothing."""
    failures: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[float | None]
    not_before: Mapped[float | None]
    dispatched_at: Mapped[float | None]
    rings: Mapped[int] = mapped_column(default=0, server_default="0")
    """Messages sent since it was last ready."""
    alone: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Nothing else runs on its host meanwhile."""
    deadline_seconds: Mapped[int]
    error: Mapped[str | None]


def in_state(*states: JobState, of: Any = Job) -> ColumnElement[bool]:
    """Whether ``of``, jobs or an alias of them, is in one of these states.

    They are spelt out in the SQL: of a bound parameter a database cannot tell which partial index holds the rows.
    """
    return or_(*(of.state == literal_column(f"'{state}'") for state in states))


def is_active() -> ColumnElement[bool]:
    """Whether a run is active; spelt out as ``in_state`` does."""
    return Run.state == literal_column(f"'{RunState.ACTIVE}'")


def is_computed(job: Any = Job) -> ColumnElement[bool]:
    """Whether a live attempt, of whichever run, computes the key of ``job``, jobs or an alias of them."""
    twin = aliased(Job)
    return exists().where(twin.key == job.key, in_state(JobState.RUNNING, of=twin))


class JobDependency(Base):
    """An edge of the graph; ``reads`` is false where it only orders."""

    __tablename__ = "job_dependencies"
    # the primary key leads from a child to its parents, this one from a parent to its children
    __table_args__ = (Index("dependencies_by_parent", "parent_id"),)

    child_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int]
    """Place among the child's inputs."""
    reads: Mapped[bool]


class Attempt(Base):
    """One execution of a job."""

    __tablename__ = "attempts"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    host: Mapped[str]
    process: Mapped[int]
    started_at: Mapped[float]
    finished_at: Mapped[float | None]
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[str | None]
    traceback: Mapped[str | None]
