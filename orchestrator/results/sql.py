"""The read-only SQL console: one statement, a time limit, a row limit, and nothing that writes."""

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from orchestrator.errors import UsageError

SECONDS = 60.0
MAX_ROWS = 1_000_000
MAX_CELL_BYTES = 10_000_000

# what is allowed, not what is forbidden: SQLite may learn new ways to write
READING_ACTIONS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
FORBIDDEN_FUNCTIONS = {"load_extension", "writefile", "readfile", "edit", "fts3_tokenizer"}


@dataclass(frozen=True)
class Answer:
    """Column names and rows of a statement."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def query(engine: Engine, statement: str) -> Answer:
    """The answer of one reading statement; ``UsageError`` if it writes, fails or takes too long."""
    if engine.dialect.name == "sqlite":
        return _query_sqlite(str(engine.url.database), statement)
    return _query_postgres(engine, statement)


def _query_sqlite(path: str, statement: str) -> Answer:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        # read-only alone would let ATTACH create another file
        connection.set_authorizer(_allow)
        # one zeroblob() or group_concat() could otherwise fill the memory
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
        deadline = time.monotonic() + SECONDS
        # called every so many steps of SQLite's own machine; a true answer interrupts the statement
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
        cursor = connection.execute(statement)
        # one more than is shown, to tell a full answer from one that was cut
        rows = cursor.fetchmany(MAX_ROWS + 1)
    except sqlite3.Error as error:
        raise UsageError(_reason(str(error))) from None
    finally:
        connection.close()
    if cursor.description is None:
        raise UsageError("sql: nothing to answer. Use SELECT on a table or view.")
    return _answer([column[0] for column in cursor.description], rows)


def _allow(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    forbidden = action == sqlite3.SQLITE_FUNCTION and second in FORBIDDEN_FUNCTIONS
    return sqlite3.SQLITE_OK if action in READING_ACTIONS and not forbidden else sqlite3.SQLITE_DENY


def _query_postgres(engine: Engine, statement: str) -> Answer:
    """In a read-only transaction, as the query of a cursor: Postgres accepts only reading ones there.

    Read-only alone would let COPY write files on the server. psycopg prepares the statement, so that it
    cannot hold two.
    """
    with engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text(f"SET LOCAL statement_timeout = {int(SECONDS * 1000)}"))
        driver: Any = connection.connection.driver_connection
        try:
            driver.execute(f"DECLARE answer NO SCROLL CURSOR FOR {statement}", prepare=True)
            cursor = driver.execute(f"FETCH {MAX_ROWS + 1} FROM answer")
            rows = cursor.fetchall()
        except engine.dialect.loaded_dbapi.Error as error:
            raise UsageError(_reason(str(error))) from None
        finally:
            connection.rollback()
    return _answer([column.name for column in cursor.description], rows)


def _answer(columns: list[str], rows: list[tuple[Any, ...]]) -> Answer:
    if len(rows) > MAX_ROWS:
        raise UsageError(f"sql: more than {MAX_ROWS:,} rows. Add a LIMIT or aggregate.")
    return Answer(columns, rows)


def _reason(message: str) -> str:
    first = message.strip().splitlines()[0]
    if "not authorized" in first or "prohibited" in first or "readonly" in first or "read-only" in first:
        return f"sql: {first}: the console only reads. Use SELECT on a table or view."
    if "interrupted" in first or "statement timeout" in first:
        return f"sql: stopped after {SECONDS:.0f} s. Narrow the statement."
    if "syntax error at or near" in first:
        return f"sql: {first}: the console takes one SELECT, WITH, VALUES or TABLE."
    return f"sql: {first}."
