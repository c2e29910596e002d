"""Connecting to SQLite or Postgres, and the two kinds of transaction: writing and reading."""

import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, CursorResult, Engine, Executable, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from db.errors import StorageError
from db.limits import LEASE_SECONDS

Result = TypeVar("Result")

PATIENCE_SECONDS = 30.0
"""How long a transaction is retried before the database counts as unreachable."""
LONGEST_PAUSE_SECONDS = 1.0
SWITCH_TRIES = 10
BUSY_SECONDS = 5.0
"""SQLite has one writer at a time: the others wait this long for their turn before they begin anew."""
STUCK_SECONDS = min(LEASE_SECONDS, PATIENCE_SECONDS) / 2
"""Postgres ends a transaction whose client says nothing for this long, and a wait for a lock.

Shorter than a lease, so that a worker that is frozen in a transaction holds up its own job alone; and shorter
than the patience of those that wait for it.
"""
OLD_SECONDS = 60
"""A connection is replaced after this long: one that only reads never hears that its server is a standby now."""
POSTGRES_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    # of several hosts the one that is no standby; a session that a failover left on a standby is none of ours
    "target_session_attrs": "read-write",
}
"""A server that vanishes silently is noticed within 20 s, not after TCP's default of 15 minutes."""
PASSING_SQLSTATES = (
    *("40001", "40P01", "55P03"),  # serialization failure, deadlock, lock not available in time
    *("08", "57P01", "57P02", "57P03"),  # connection lost, server stopping, crashed or starting
    *(
        "25006",
        "25P03",
        "57014",
        "57P05",
    ),  # a standby; a transaction, statement or session ended by a timeout
    "53",  # too many connections, disk full, out of memory
)
"""What passes by itself on Postgres: the transaction is tried again."""
STANDBY = "25006"
"""Read only: a failover has made this session's server a standby."""
PASSING_SQLITE_CODES = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PROTOCOL,  # a race for the log's index
)
"""The same for SQLite."""

WRITING = {
    # with a plain BEGIN, one that reads and then writes is refused as locked where another wrote in between
    "sqlite": "BEGIN IMMEDIATE",
}
READING = {
    "sqlite": "BEGIN",
    # the default shows every statement what was committed last; a report of two statements would contradict
    # itself
    "postgresql": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
}
"""How a transaction opens; Postgres' driver begins one by itself."""

_SESSION: dict[str, Any] = {
    # rows are read after their session has ended
    "expire_on_commit": False,
    "execution_options": {"synchronize_session": False},  # no object outlives the statement that changes it
}


class DatabaseError(StorageError):
    """The database cannot be used; the message says why and what to do."""


class Unreachable(StorageError):
    """The database did not answer within the patience allowed."""


def open_engine(url: str, *, durable: bool = True) -> Engine:
    """An engine for ``sqlite:///PATH`` or ``postgresql://…``; raises ``DatabaseError`` on any other URL.

    Connections are pooled, so an engine belongs to the process that opened it: a worker opens its own in each
    child, after the fork. What is not ``durable`` does not wait for the disk: when power fails the last commits
    may be lost, never part of one. That is for workers, whose lost commits are jobs that run again.
    """
    try:
        address = make_url(url)
        if address.drivername in ("postgresql", "postgres"):
            # without a driver's name SQLAlchemy would look for psycopg2
            address = address.set(drivername="postgresql+psycopg")
        if address.get_backend_name() not in ("sqlite", "postgresql"):
            raise DatabaseError(f"database '{address}': use sqlite:///PATH or postgresql://USER@HOST/NAME.")
        is_sqlite = address.get_backend_name() == "sqlite"
        arguments = {"timeout": BUSY_SECONDS} if is_sqlite else _postgres_arguments(address, durable)
        # pooled, since opening SQLite costs more than a transaction; no ping, which costs half of one: a
        # connection that a restarted server has closed fails once, and with it goes the whole pool
        engine = create_engine(
            address, pool_size=2, max_overflow=30, pool_recycle=OLD_SECONDS, connect_args=arguments
        )
    except (ArgumentError, NoSuchModuleError, ValueError):
        # a URL that does not parse may still hold a password
        shown = re.sub("://.*@", "://***@", url)
        raise DatabaseError(f"database '{shown}': not a database URL such as sqlite:///PATH.") from None
    except ModuleNotFoundError as error:
        raise DatabaseError(f"database '{address}': {error}. pip install 'orchestrator[postgres]'.") from None
    if is_sqlite:
        # the pool's; one listener of the engine's own would cost every transaction 15 µs and every statement 2
        event.listen(engine, "connect", partial(_configure_sqlite, durable))
    return engine


def _postgres_arguments(address: URL, durable: bool) -> dict[str, Any]:
    """Of the connection; whatever the URL says itself stays as it says."""
    milliseconds = round(1000 * STUCK_SECONDS)
    settings = {
        "idle_in_transaction_session_timeout": milliseconds,
        "lock_timeout": milliseconds,
        "synchronous_commit": "on" if durable else "off",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return {
        name: value
        for name, value in (POSTGRES_ARGUMENTS | {"options": options}).items()
        if name not in address.query
    }


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session in one write transaction (SQLite: BEGIN IMMEDIATE), committed at the end."""
    with Session(engine, **_SESSION) as session, session.begin():
        _open(session, engine, WRITING)
        yield session


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session in one read transaction: it sees one moment, and on SQLite takes no write lock."""
    with Session(engine, **_SESSION) as session:
        _open(session, engine, READING)
        yield session


def _open(session: Session, engine: Engine, openings: Mapping[str, str]) -> None:
    if opening := openings.get(engine.dialect.name):
        session.connection().exec_driver_sql(opening)


def write(
    engine: Engine, function: Callable[[Session], Result], patience_seconds: float = PATIENCE_SECONDS
) -> Result:
    """Run ``function(session)`` in one write transaction; rerun it whole on whatever passes by itself.

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
            if getattr(error.orig, "sqlstate", None) == STANDBY:
                engine.dispose()  # whose other sessions lead there, too
            if time.monotonic() > deadline:
                reason = str(error.orig).strip().splitlines()[0]
                raise Unreachable(f"database '{engine.url}': {reason}. Is it running?") from error
        # at random, so that processes that failed together do not come back together
        time.sleep(random.uniform(0, pause))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _retryable(error: DBAPIError) -> bool:
    """Whether it passes by itself, or the connection was lost or could not be made."""
    if isinstance(error.orig, sqlite3.Error):
        # the low byte: the others say more, for example where an I/O error was
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in PASSING_SQLITE_CODES
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        # psycopg's for a connection that could not be made
        return error.connection_invalidated or isinstance(error, OperationalError)
    return str(sqlstate).startswith(PASSING_SQLSTATES)


def _configure_sqlite(durable: bool, connection: Any, _: Any) -> None:
    # each belongs to the connection, not to the file: in WAL anything below FULL may lose the last commits
    # when power fails, and SQLite checks no foreign keys unless asked to
    for pragma in (f"synchronous={'FULL' if durable else 'NORMAL'}", "foreign_keys=ON"):
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
