"""New databases for benchmarks: SQLite files, and databases of a Postgres server with its default settings."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from harness.postgres import PostgresServer, Programs
from sqlalchemy import text

from db.engine import open_engine
from db.schema import upgrade

KINDS = ("sqlite", "postgresql")


@contextmanager
def new_postgres(settings: str = "") -> Iterator[PostgresServer]:
    """A running server; ``settings`` are options of its command line."""
    with ExitStack() as stack:
        programs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b-")))
        server = PostgresServer(Programs.prepared(programs), Path(tempfile.mkdtemp(prefix="b-")), settings)
        stack.callback(server.remove)
        server.create()
        server.start()
        yield server


@contextmanager
def new_database(kind: str) -> Iterator[tuple[str, PostgresServer | None]]:
    """URL of a new, migrated database, and its server if it has one."""
    with ExitStack() as stack:
        if kind == "postgresql":
            server = stack.enter_context(new_postgres())
            url = server.url("postgres")
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="b-"))
            server, url = None, f"sqlite:///{folder}/database.sqlite"
        upgrade(open_engine(url))
        yield url, server


def copy_database(server: PostgresServer, source: str, copy: str) -> str:
    """URL of a copy of one of a server's databases, of the same statistics; nobody may be connected to it."""
    engine = open_engine(server.url("template1")).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {copy} TEMPLATE {source}"))
        connection.execute(text("CHECKPOINT"))  # not while it is measured
    engine.dispose()
    return server.url(copy)


def vacuum(url: str) -> None:
    """Give a Postgres database the statistics and the maps that its autovacuum would give it in time."""
    engine = open_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def copy_file(source: Path, copy: Path) -> None:
    """Copy a SQLite file that nobody has open."""
    shutil.copyfile(source, copy)


def server_processes(server: PostgresServer | None) -> list[psutil.Process]:
    """Postgres' first process; none for SQLite."""
    if server is None:
        return []
    pid = (server.folder / "data" / "postmaster.pid").read_text().splitlines()[0]
    return [psutil.Process(int(pid))]
