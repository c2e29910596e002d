"""Fixtures for clusters that are disturbed: their database, their seed, and the lines that they report."""

import os
import shutil
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from harness.cluster import Cluster, Sizes
from harness.postgres import PostgresServer

SEED = 20261122
LINE = "chaos"
"""The property of a test's report that holds a line; what runs the test may be another process than what prints."""


def pytest_terminal_summary(terminalreporter):
    """The lines that tests have reported, whatever became of the tests."""
    reports = [report for of_outcome in terminalreporter.stats.values() for report in of_outcome]
    ended = [report for report in reports if getattr(report, "when", None) == "teardown"]
    lines = [line for report in ended for name, line in report.user_properties if name == LINE]
    if lines:
        terminalreporter.section("chaos")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture
def say(record_property):
    """``say(line)`` prints it now and again at the end."""

    def say(line):
        print(line, flush=True)
        record_property(LINE, line)

    return say


@pytest.fixture(scope="session")
def seed():
    """What chooses every kill: ``CHAOS_SEED``, or the same one every time. Reports print it."""
    return int(os.environ.get("CHAOS_SEED") or SEED)


@pytest.fixture(scope="session")
def number():
    """``number("CHAOS_JOBS", 600)`` is a size of a storm that the environment may change."""
    return lambda name, default: int(os.environ.get(name) or default)


@pytest.fixture(scope="session")
def short_folder():
    """``short_folder()`` is a new folder under a path short enough for a socket; deleted at the end."""
    with ExitStack() as stack:
        yield lambda: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c-")))


@pytest.fixture
def new_postgres(postgres_programs):
    """``new_postgres()`` starts a server of the test's own, which may be stopped and started."""
    with ExitStack() as stack:

        def start():
            server = PostgresServer(postgres_programs, Path(tempfile.mkdtemp(prefix="postgres-")))
            stack.callback(server.remove)
            server.create()
            server.start()
            return server

        yield start


@pytest.fixture
def new_database(postgres, postgres_template):
    """URL of a migrated Postgres database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.format(name="postgres"), autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
        yield postgres.format(name=name)
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def new_cluster(new_postgres):
    """``new_cluster("postgresql", Sizes(workers=2))`` is a running cluster on a database of its own.

    Its processes are killed at the test's end.
    """
    with ExitStack() as stack:

        def start(database="sqlite", sizes=None, *, kept=True):
            server = new_postgres() if database == "postgresql" else None
            folder = Path(tempfile.mkdtemp(prefix="c-"))
            stack.callback(shutil.rmtree, folder)
            return stack.enter_context(Cluster(folder, server, sizes or Sizes(), kept))

        yield start


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """The name of a database: once SQLite, once Postgres."""
    return request.param
