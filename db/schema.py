"""Bring a database to this code's schema; refuse one that is not ours or is newer."""

import re
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DatabaseError as SqlDatabaseError
from sqlalchemy.exc import OperationalError

from db.engine import DatabaseError, reading, writing
from db.results.published import write_down
from db.results.views import VIEWS

MIGRATIONS = Path(__file__).parent / "migrations"

HEAD = max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
"""The newest revision, by the number that its file's name begins with."""

_LOCK = 7_206_118
"""Any number of our own: the advisory lock that lets one process migrate at a time."""

_UTC = {
    "sqlite": r"datetime(\1, 'unixepoch')",
    "postgresql": r"to_char(to_timestamp(\1) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')",
}
"""What ``utc(COLUMN)`` in a view stands for: seconds since 1970 as readable text, NULL for none."""


def upgrade(engine: Engine) -> None:
    """Create or upgrade the tables and views; raises ``DatabaseError`` where that is impossible.

    Any number of processes may call this at once: the first migrates, the others wait.
    """
    try:
        # nearly always there is nothing to do, and a look takes no write lock
        with reading(engine) as session:
            if _revision(session.connection(), engine) == HEAD:
                return
        with writing(engine) as session:
            connection = session.connection()
            # SQLite needs no lock of its own: BEGIN IMMEDIATE lets one process in at a time
            if engine.dialect.name == "postgresql":
                # a migration takes as long as it takes
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            # looked at again, since another process may have migrated while this one waited
            if _revision(connection, engine) != HEAD:
                _migrate(connection, engine)
    except SqlDatabaseError as error:
        if engine.dialect.name == "postgresql" and isinstance(error, OperationalError):
            raise  # the server does not answer
        reason = str(error.orig).strip().splitlines()[0]
        raise DatabaseError(f"database '{engine.url}': {reason}.") from None


def _migrate(connection: Connection, engine: Engine) -> None:
    from alembic import command  # half a second that a database at this schema does not need
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
        write_down(connection)
        # views are not migrated but recreated; those that others stand on go last
        for name in reversed(VIEWS):
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
        for name, definition in VIEWS.items():
            written = re.sub(r"\butc\((.+?)\)", _UTC[engine.dialect.name], definition)
            connection.exec_driver_sql(f"CREATE VIEW {name} AS {written}")
    except CommandError as error:  # a revision that is none of ours
        raise DatabaseError(
            f"database '{engine.url}': {error}. Name an empty database or one of ours."
        ) from None


def _revision(connection: Connection, engine: Engine) -> str | None:
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise DatabaseError(
                f"database '{engine.url}': it holds other tables ({', '.join(sorted(tables)[:3])} …). "
                "Name an empty database or one of ours."
            )
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    # revisions are four digits, so that text compares like numbers
    if revision is not None and revision > HEAD:
        raise DatabaseError(
            f"database '{engine.url}': schema {revision} is none of this code's, whose newest is {HEAD}. "
            "Upgrade the orchestrator, or name another database."
        )
    return revision
