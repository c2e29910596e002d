"""Connecting to SQLite or Postgres, and the two kinds of transaction: writing and reading."""

import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from db.errors import StorageError

Result = TypeVar("Result")

PATIENCE_SECONDS = 30.0
"""How long a transaction is retried before the database counts as unreachable."""
LONGEST_PAUSE_SECONDS = 1.0
SWITCH_TRIES = 10
# SQLite has one writer at a time: the others wait this long for their turn, in seconds
SQLITE_ARGUMENTS = {"timeout": 60}
POSTGRES_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
"""A server that vanishes silently is noticed within 20 s, not after TCP's default of 15 minutes."""
RETRYABLE_SQLSTATES = ("40P01", "40001", "55P03", "08", "57P01", "57P02", "57P03")
"""Postgres: deadlock, serialization failure, lock not available; connection lost, server stopping or starting."""

_SESSION: dict[str, Any] = {
    # rows are read after their session has ended
    "expire_on_commit": False,
    "execution_options": {"synchronize_session": False},  # no object outlives the statement that changes it
}


class DatabaseError(StorageError):
    """The database cannot be used; the message says why and what to do."""


class Unreachable(StorageError):
    """The database did not answer within the patience allowed."""


def open_engine(url: str) -> Engine:
    """An engine for ``sqlite:///PATH`` or ``postgresql://…``; raises ``DatabaseError`` on any other URL.

    SQLite runs in WAL with ``synchronous=FULL``. Connections are pooled, so an engine belongs to the process
    that opened it: a worker opens its own in each child, after the fork.
    """
    try:
        address = make_url(url)
        if address.drivername in ("postgresql", "postgres"):
            # without a driver's name SQLAlchemy would look for psycopg2
            address = address.set(drivername="postgresql+psycopg")
        if address.get_backend_name() not in ("sqlite", "postgresql"):
            raise DatabaseError(f"database '{address}': use sqlite:///PATH or postgresql://USER@HOST/NAME.")
        arguments = SQLITE_ARGUMENTS if address.get_backend_name() == "sqlite" else POSTGRES_ARGUMENTS
        # pooled, since opening SQLite costs more than a transaction; the ping replaces connections that a
        # restarted server has closed
        engine = create_engine(
            address, pool_size=2, max_overflow=30, pool_pre_ping=True, connect_args=arguments
        )
    except (ArgumentError, NoSuchModuleError, ValueError):
        # a URL that does not parse may still hold a password
        shown = re.sub("://.*@", "://***@", url)
        raise DatabaseError(f"database '{shown}': not a database URL such as sqlite:///PATH.") from None
    except ModuleNotFoundError as error:
        raise DatabaseError(f"database '{address}': {error}. pip install 'orchestrator[postgres]'.") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session in one write transaction (SQLite: BEGIN IMMEDIATE), committed at the end."""
    with Session(engine, **_SESSION) as session, session.begin():
        yield session


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session in one read transaction: it sees one moment, and on SQLite takes no write lock."""
    options: dict[str, Any] = {"reads_only": True}
    if engine.dialect.name == "postgresql":
        # the default shows every statement what was committed last; a report of two statements would
        # contradict itself
        options["isolation_level"] = "REPEATABLE READ"
    with Session(engine.execution_options(**options), **_SESSION) as session:
        yield session


def write(
    engine: Engine, function: Callable[[Session], Result], patience_seconds: float = PATIENCE_SECONDS
) -> Result:
    """Run ``function(session)`` in one write transaction; rerun it whole on a deadlock or a lost connection.

    A commit whose answer was lost may have happened: every function passed here is guarded, so that a second
    run changes nothing. Raises ``Unreachable`` when patience runs out.
    """
    return _patiently(engine, writing, function, patience_seconds)


def execute(
    session: Session, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None, /, **values: Any
) -> CursorResult[*tuple[Any, ...]]:
    """Execute a statement that was built once, with the values of its parameters, without the ORM's share of work.

    ``rows`` inserts many at once.
    """
    return session.connection().execute(statement, rows if rows is not None else values)


def read(engine: Engine, function: Callable[[Session], Result]) -> Result:
    """Run ``function(session)`` in one read transaction; rerun as ``write`` does."""
    return _patiently(engine, reading, function, PATIENCE_SECONDS)


def _patiently(
    engine: Engine,
    transaction: Callable[[Engine], AbstractContextManager[Session]],
    function: Callable[[Session], Result],
    patience_seconds: float,
) -> Result:
    deadline, pause = time.monotonic() + patience_seconds, 0.02
    while True:
        try:
            with transaction(engine) as session:
                return function(session)
        except DBAPIError as error:
            if not _retryable(error):
                raise
            if time.monotonic() > deadline:
                reason = str(error.orig).strip().splitlines()[0]
                raise Unreachable(f"database '{engine.url}': {reason}. Is it running?") from error
        # at random, so that processes that failed together do not come back together
        time.sleep(random.uniform(0, pause))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _retryable(error: DBAPIError) -> bool:
    """A deadlock, or a connection that was lost or could not be made; psycopg gives the latter no SQLSTATE."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        # SQLite has no such case: its busy timeout has waited already, so what it raises is final
        unanswered = isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")
        return error.connection_invalidated or unanswered
    return str(sqlstate).startswith(RETRYABLE_SQLSTATES)


def _configure_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so
    # each belongs to the connection, not to the file: in WAL anything below FULL may lose the last commits
    # when power fails, and SQLite checks no foreign keys unless asked to
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "busy_timeout=60000"):
        connection.execute(f"PRAGMA {pragma}").close()
    _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: Any) -> None:
    """When several processes open a new file at once, SQLite refuses the switch instead of waiting."""
    for attempt in range(SWITCH_TRIES):
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError:
            if attempt == SWITCH_TRIES - 1:
                raise
            time.sleep(random.uniform(0, 0.02 * 2**attempt))


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    # with a plain BEGIN, one that reads and then writes is refused as locked where another wrote in between
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
