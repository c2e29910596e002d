"""The network that a job was planned with."""

from early_exit.backbone import recipe
from early_exit.settings import Architecture
from tasks.job_io import Refused


def planned(architecture: Architecture, version: int) -> Architecture:
    """The architecture of a job; ``version`` is that of the backbone's file when the job was planned.

    Raises ``Refused`` for another version of the file: its results would be stored under the wrong key.
    """
    name = architecture.backbone
    if recipe(name).version != version:
        raise Refused(
            f"planned with version {version} of backbone {name}, but version {recipe(name).version} is here: "
            "submit the run again"
        )
    return architecture
