"""Everything that a database holds, for comparison with itself."""

from sqlalchemy import Engine, select

import db.results.tables  # noqa: F401  # the tables of results belong to the models
from db.engine import reading
from db.models import Base


def all_rows(engine: Engine) -> dict[str, list[str]]:
    """Every row of every table, in a fixed order."""
    with reading(engine) as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table))))
            for table in Base.metadata.sorted_tables
        }
