"""The test-only stage ``link``: a job that costs little, imports no torch and computes the same at any time."""

from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import tasks
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
    tasks.__path__.append(str(STAGES_FOLDER))


def code() -> str:
    """``jobs.code`` of a link, from a process that cannot compute one."""
    from tasks.code import code_of

    with patch.dict(STAGES, {Link.stage: Link}):
        return code_of(Link.stage)
