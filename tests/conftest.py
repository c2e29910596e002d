"""Fixtures for all tests: real databases, hand-made graphs of jobs, and a clock that can be moved."""

import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.postgres import PostgresServer, Programs
from sqlalchemy import Engine, select, text

import db.clock
import db.results.tables  # the tables of results belong to the models
from db.artifacts import ArtifactStore
from db.claims import claim
from db.dispatch import top_up
from db.engine import open_engine, reading, write
from db.jobs import Outcome, Worker, fail, finish
from db.models import Artifact, Attempt, Dataset, Job, JobDependency, JobState, Run
from db.schema import upgrade
from db.shares import Turns

ROOT = Path(__file__).parent
CODE = "sweep 1"
WORKER = Worker("worker-1", "host-1", 4711, (CODE,))


LONGEST = (
    "chaos/test_supervisor.py",
    "chaos/test_broker.py",
    "chaos/test_supervisor.py",
    "acceptance/test_steps_report.py",
    "chaos/test_kill_storm.py",
    "acceptance/test_interruption.py",
    "acceptance/test_shared_cluster.py",
    "chaos/test_database_away.py",
    "chaos/test_failover.py",
    "chaos/test_power_cut.py",
    "chaos/test_frozen_transaction.py",
    "chaos/test_fuzz.py",
    "unit/test_keep_alive.py",
    "acceptance/test_new_stage.py",
    "acceptance/test_backbones.py",
    "acceptance/test_baselines.py",
    "chaos/test_zombies.py",
    "chaos/test_every_step.py",
    "acceptance/test_failing_job.py",
    "chaos/test_cancel.py",
    "acceptance/test_more_kinds.py",
    "acceptance/test_sql_views.py",
    "acceptance/test_report.py",
    "chaos/test_doubles.py",
    "chaos/test_training_goes_on.py",
    "chaos/test_state_machine.py",
    "chaos/test_poison.py",
    "acceptance/test_cached_results.py",
    "acceptance/test_bad_artifacts.py",
    "acceptance/test_export.py",
    "acceptance/test_private_cluster.py",
)
"""Files that take 20 seconds or more. They begin first, so that no process is left alone with one of them."""
ONE_AFTER_ANOTHER = ("storm", "soak")
"""What has the machine to itself, since it is measured."""


def pytest_configure():
    """What is started here can be interrupted: a child ignores what its parent was told to ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config):
    """Three files at a time, whatever the machine: chaos waits more than it computes."""
    return 0 if config.option.markexpr in ONE_AFTER_ANOTHER else 3


def pytest_collection_modifyitems(items):
    """Files in the order of ``LONGEST``, then all others as they come."""
    order = {ROOT / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


# ---- databases ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_programs():
    """Postgres' binaries; a test that cannot have them fails."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        yield Programs.prepared(folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(postgres_programs):
    """URL of a real Postgres without its database's name."""
    server = PostgresServer(postgres_programs, Path(tempfile.mkdtemp(prefix="postgres-")), "-c fsync=off")
    try:
        server.create()
        server.start()
        yield server.url("{name}")
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres):
    """Name of a migrated Postgres database that those of the tests are copies of."""
    name = "migrated"
    _administer(postgres, f"CREATE DATABASE {name}")
    _migrate(postgres.format(name=name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory):
    """Path of a migrated SQLite database that those of the tests are copies of."""
    path = tmp_path_factory.mktemp("migrated") / "database.sqlite"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request, tmp_path):
    """URL of a database without tables: once SQLite, once Postgres."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'database.sqlite'}"
    else:
        yield from _postgres_database(request.getfixturevalue("postgres"), "template0")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """URL of a migrated database of the test's own: once SQLite, once Postgres."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "database.sqlite")
        yield f"sqlite:///{tmp_path / 'database.sqlite'}"
    else:
        template = request.getfixturevalue("postgres_template")
        yield from _postgres_database(request.getfixturevalue("postgres"), template)


@pytest.fixture
def open_database():
    """``open_database(url)`` is an engine that is closed after the test."""
    engines = []

    def remember(url):
        engines.append(open_engine(url))
        return engines[-1]

    yield remember
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(database_url, open_database):
    """An engine on a migrated database of the test's own: once SQLite, once Postgres."""
    return open_database(database_url)


@pytest.fixture
def empty_engine(empty_database_url, open_database):
    """An engine on a database without tables: once SQLite, once Postgres."""
    return open_database(empty_database_url)


def _migrate(url):
    """Leave no connection, so that the database can be copied: on SQLite the last one to close ends the log."""
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()


def _postgres_database(url, template):
    name = f"test_{uuid.uuid4().hex}"
    _administer(url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url.format(name=name)
    _administer(url, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(url, statement):
    administrator = open_engine(url.format(name="postgres"))
    with administrator.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(statement))
    administrator.dispose()


@pytest.fixture
def later(monkeypatch):
    """``later(seconds)`` moves the database's clock on."""

    def move(seconds):
        monkeypatch.setattr(db.clock, "shift_seconds", db.clock.shift_seconds + seconds)

    return move


@pytest.fixture
def store(tmp_path):
    """An artifact store of the test's own."""
    return ArtifactStore(str(tmp_path / "artifacts"))


# ---- runs with hand-made graphs -----------------------------------------------------------------------


@dataclass(frozen=True)
class StoredRun:
    """A run in the database; its jobs go by the names that the test gave them."""

    engine: Engine
    id: int
    jobs: Mapping[str, int]

    @property
    def state(self):
        """The run's own state."""
        with reading(self.engine) as session:
            return session.get_one(Run, self.id).state

    @property
    def states(self):
        """State by job."""
        return self.all("state")

    def all(self, column):
        """One column by job."""
        with reading(self.engine) as session:
            rows = {job.id: job for job in session.scalars(select(Job).where(Job.run_id == self.id))}
        return {name: getattr(rows[job_id], column) for name, job_id in self.jobs.items()}

    def job(self, name):
        """One job's row, detached."""
        with reading(self.engine) as session:
            return session.get_one(Job, self.jobs[name])

    def attempts(self, name):
        """One job's attempts, oldest first, detached."""
        statement = select(Attempt).where(Attempt.job_id == self.jobs[name]).order_by(Attempt.attempt)
        with reading(self.engine) as session:
            return session.scalars(statement).all()

    def set(self, name, **columns):
        """Overwrite columns of a job."""

        def overwrite(session):
            job = session.get_one(Job, self.jobs[name])
            for column, value in columns.items():
                setattr(job, column, value)

        write(self.engine, overwrite)

    def claim(self, name, worker=WORKER):
        """Claim a job as a worker does."""
        return write(self.engine, lambda session: claim(session, self.jobs[name], worker, Turns()))

    def finish(self, held, file=None, rows=None):
        """Finish a claimed job as a worker does."""
        return write(self.engine, lambda session: finish(session, held, Outcome(file, rows or {}, 1_000)))

    def fail(self, held, *, retry=False):
        """Fail a claimed job as a worker does."""
        return write(
            self.engine, lambda session: fail(session, held, "ValueError: no", "Traceback …", retry=retry)
        )

    def do(self, name, file=None, rows=None):
        """Claim and finish a job."""
        held = self.claim(name)
        assert held is not None, f"{name} is not there to be claimed: {self.states}"
        assert self.finish(held, file, rows)


@pytest.fixture
def add_run(engine):
    """``add_run({"a": [], "b": ["a"]})`` stores an active run in which b reads a, and returns a ``StoredRun``.

    ``after`` adds parents that are waited for and not read; ``columns`` overwrites a job's columns by its
    name. A job's key is ``key-NAME``, so that two runs share their jobs' keys unless told otherwise.
    """

    def add(graph, *, after=None, columns=None, **run_columns):
        return write(engine, lambda session: insert(session, graph, after or {}, columns or {}, run_columns))

    def insert(session, graph, after, columns, run_columns):
        dataset = session.scalar(select(Dataset))
        if dataset is None:
            dataset = Dataset(digest="d", uri="file:///d", classes=["x"], ignored_files=0, built_in=False)
            session.add(dataset)
            session.flush()
        run = Run(
            **{
                "identity": uuid.uuid4().hex,
                "plan": "full-paper",
                "profile": "demo",
                "spec": {},
                "code_version": "1",
                "environment": {},
                "dataset_id": dataset.id,
                "created_at": 1_700_000_000.0,
                **run_columns,
            }
        )
        session.add(run)
        session.flush()
        jobs = {}
        for name, reads in graph.items():
            parents = [*reads, *after.get(name, ())]
            waiting_for = sum(jobs[parent].state != JobState.SUCCEEDED for parent in parents)
            defaults = {
                "run_id": run.id,
                "stage": "sweep",
                "label": name,
                "key": f"key-{name}",
                "code": CODE,
                "params": {},
                "queue": "cpu",
                "state": JobState.WAITING if waiting_for else JobState.READY,
                "waiting_for": waiting_for,
                "deadline_seconds": 600,
            }
            jobs[name] = Job(**{**defaults, **columns.get(name, {})})
            session.add(jobs[name])
            session.flush()
            for position, parent in enumerate(parents):
                session.add(
                    JobDependency(
                        child_id=jobs[name].id,
                        parent_id=jobs[parent].id,
                        position=position,
                        reads=position < len(reads),
                    )
                )
        return StoredRun(engine, run.id, {name: job.id for name, job in jobs.items()})

    return add


@pytest.fixture
def add_artifact(engine):
    """``add_artifact(key, rows, stage=…, uri=…)`` stores an artifact with its rows and returns its id."""

    def add(key, rows=None, **columns):
        def insert(session):
            defaults = {"stage": "sweep", "bytes": 0, "created_at": 1_700_000_000.0}
            artifact = Artifact(key=key, **{**defaults, **columns})
            session.add(artifact)
            session.flush()
            for table, values in (rows or {}).items():
                session.add_all([table(artifact_id=artifact.id, **row) for row in values])
            return artifact.id

        return write(engine, insert)

    return add


@pytest.fixture
def queue_ready_jobs(engine):
    """``queue_ready_jobs()`` tops the queues up, as after every commit, and returns the doorbells."""
    return lambda: write(engine, top_up)
