"""A run's share of the workers, which changes none of its results: its weight and its limits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from db.engine import write
from db.models import Run
from db.shares import ALL_STAGES
from orchestrator.errors import UsageError, nearest
from tasks.params import STAGES


@dataclass(frozen=True)
class Share:
    """What was asked for; None where nothing was."""

    priority: int | None = None
    """Active runs share the workers in proportion to it; 1 by default."""
    limits: dict[str, int] | None = None
    """How many jobs may run at once, by stage and over ``ALL_STAGES``; no limit by default."""

    @property
    def columns(self) -> dict[str, Any]:
        """Those of ``runs`` that it sets."""
        return {name: value for name, value in vars(self).items() if value is not None}


EQUAL = Share()
"""As much as any other run, without limits."""


def typed_share(priority: int | None, most_running: Iterable[str]) -> Share:
    """From options: limits are ``N`` or ``STAGE=N``, each 1 or more; raises ``UsageError`` for others."""
    limits = dict(map(_limit, most_running))
    return Share(priority, limits or None)


def _limit(text: str) -> tuple[str, int]:
    stage, equals, number = text.rpartition("=")
    if equals and stage not in STAGES:
        raise UsageError(f"--max-running '{text}': unknown stage '{stage}'.{nearest(stage, STAGES)}")
    if not (number.isascii() and number.isdecimal() and int(number)):
        raise UsageError(f"--max-running '{text}': expected N or STAGE=N, N being 1 or more.")
    return stage if equals else ALL_STAGES, int(number)


def change_share(engine: Engine, run_id: int, share: Share) -> None:
    """Give a stored run another share; what was not asked for stays as it is."""
    columns = share.columns

    def change(session: Session) -> None:
        session.execute(update(Run).where(Run.id == run_id).values(columns))

    if columns:
        write(engine, change)
