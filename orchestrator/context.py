"""What one command works with: its place, the database, the artifacts, and where it prints."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rich.console import Console
from sqlalchemy import Engine

from db.engine import open_engine
from db.schema import upgrade
from orchestrator.cluster.place import Place, current_place, open_store
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from db.artifacts import ArtifactStore


@dataclass(frozen=True)
class Context:
    """Opened once per command and passed on as one."""

    place: Place
    engine: Engine
    console: Console

    @cached_property
    def store(self) -> ArtifactStore:
        """The artifacts; opened when it is first asked for, since most commands read only the database."""
        return open_store(self.place)


def open_context(*, create: bool = False) -> Context:
    """The context of the place that the environment names, its database at this code's schema.

    ``create``: make a private home if there is none; otherwise a missing one is a ``UsageError``.
    """
    place = current_place(create=create)
    if place.home is not None and not create and not (place.home / "orchestrator.db").exists():
        raise UsageError(f"no runs under '{place.home}'. Start one: orchestrator submit full-paper")
    engine = open_engine(place.database_url)
    # by every command: whichever comes first after an upgrade migrates
    upgrade(engine)
    return Context(place, engine, open_console())


def open_console() -> Console:
    """Standard output: as wide as the terminal, 140 columns elsewhere."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)
