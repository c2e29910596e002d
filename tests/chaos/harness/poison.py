"""The test-only stage ``poison``: a job that ends, or does not, in a way that its parameters name."""

from dataclasses import dataclass

from harness.link import Link
from tasks.params import STAGES


@dataclass(frozen=True)
class Poison(Link):
    """Writes a line at every execution and then does what ``way`` says; filed under the code of a link."""

    stage = "poison"

    way: str = "raise"
    """One of ``WAYS`` in ``stages/poison.py``."""
    log: str = ""
    """The file that executions are counted by."""


def install() -> None:
    """Let this process compute poisons; links must be installed."""
    STAGES[Poison.stage] = Poison
