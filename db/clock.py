"""The database's clock, the only clock that leases and retries are measured with."""

from typing import Any

from sqlalchemy import Float, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement, FunctionElement

shift_seconds = 0.0
"""Added to the clock; a test sets it to let leases expire without waiting."""


class _DatabaseSeconds(FunctionElement[float]):
    """Seconds since 1970 UTC, from the database."""

    type = Float()
    inherit_cache = True


@compiles(_DatabaseSeconds, "sqlite")
def _sqlite(element: Any, compiler: Any, **_: Any) -> str:
    # 2440587.5 is 1970 as a Julian day; unixepoch() has fractions of a second from SQLite 3.42 on only
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_DatabaseSeconds, "postgresql")
def _postgresql(element: Any, compiler: Any, **_: Any) -> str:
    # not now(), which is the start of the transaction: one that waited for a lock would set an old lease
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"


def now() -> ColumnElement[float]:
    """Seconds since 1970 UTC by the database's clock, as an SQL expression."""
    # read when a statement is executed: most are built once, when their module is loaded
    return _DatabaseSeconds() + bindparam(None, callable_=lambda: shift_seconds, type_=Float())
