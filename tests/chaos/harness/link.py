"""The test-only stage ``link``: a job that costs little, imports no torch and computes the same at any time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import tasks.stages
from tasks.code import code_of
from tasks.params import STAGES, StageParams

STAGES_FOLDER = Path(__file__).parents[1] / "stages"


@dataclass(frozen=True)
class Link(StageParams):
    """A digest of its own name and of what its parents have left."""

    stage = "link"
    version = 1
    libraries = ("numpy",)
    writes_rows = True
    deadline_seconds = 600

    name: str
    writes: bool = True
    """False for a job that does nothing: no file and no rows."""
    gate: str = ""
    """A path that must exist before the job goes on."""


def install() -> None:
    """Let this process compute links."""
    STAGES[Link.stage] = Link
    tasks.stages.__path__.append(str(STAGES_FOLDER))


@contextmanager
def installed() -> Iterator[None]:
    """Let this process compute links within the block alone."""
    with (
        patch.dict(STAGES, {Link.stage: Link}),
        patch.object(tasks.stages, "__path__", [*tasks.stages.__path__, str(STAGES_FOLDER)]),
    ):
        yield


def code() -> str:
    """``jobs.code`` of a link."""
    with installed():
        return code_of(Link.stage)
