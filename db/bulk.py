"""Rows by the hundred thousand: numbers for new jobs in advance, and the fastest way in that each database has."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.models import Base, Job

Item = TypeVar("Item")

BATCH = 5_000
"""Rows per statement on SQLite, where they do not stream."""


def take_job_ids(session: Session, count: int) -> Sequence[int]:
    """Ids for ``count`` new jobs, in ascending order; no other process is given any of them."""
    if session.get_bind().dialect.name == "sqlite":
        first = (session.scalar(select(func.max(Job.id))) or 0) + 1
        return range(first, first + count)  # the only writer until the commit
    sequence = func.pg_get_serial_sequence(Job.__tablename__, Job.id.key)
    return session.scalars(
        select(func.nextval(sequence)).select_from(func.generate_series(1, count).alias())
    ).all()


def insert_rows(session: Session, model: type[Base], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns; they are taken from ``rows`` as they are needed.

    Values are as the driver stores them: JSON as text, states as their values. Defaults are the database's alone.
    """
    remaining = iter(rows)
    first = next(remaining, None)
    if first is None:
        return
    table, columns = model.__tablename__, ", ".join(first)
    values = (tuple(row.values()) for row in chain([first], remaining))
    if session.get_bind().dialect.name == "postgresql":
        _copy(session, f"COPY {table} ({columns}) FROM STDIN", values)
        return
    marks = ", ".join("?" * len(first))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608  # our own names
    for batch in batches(values, BATCH):
        session.connection().exec_driver_sql(statement, batch)


def analyze(session: Session, *models: type[Base]) -> None:
    """Count tables that have just grown: Postgres plans a new one as if it were small until autovacuum comes by."""
    if session.get_bind().dialect.name == "postgresql":
        tables = ", ".join(model.__tablename__ for model in models)
        # whoever has locked one is counting it
        session.execute(text(f"ANALYZE (SKIP_LOCKED) {tables}"))


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of ``size``, the last of which may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _copy(session: Session, statement: str, values: Iterable[tuple[Any, ...]]) -> None:
    connection = session.connection()
    driver: Any = connection.connection.driver_connection
    dialect: Any = connection.dialect
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in values:
                copy.write_row(row)
    except dialect.dbapi.Error as error:
        # in SQLAlchemy's words, like every other statement, so that a lost connection is tried again
        lost = dialect.is_disconnect(error, driver, None)
        if lost:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement, None, error, dialect.dbapi.Error, connection_invalidated=lost, dialect=dialect
        ) from error
