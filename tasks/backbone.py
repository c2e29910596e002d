"""The network that a job was planned with."""

from early_exit.backbone import recipe
from early_exit.settings import Architecture
from tasks.job_io import Refused


def planned(architecture: Architecture, version: int) -> Architecture:
    """The architecture of a job; ``version``: of the backbone's file, as the key of its weights has it.

    Refuses to compute with another version of the file, whose results would stand under that key.
    """
    name = architecture.backbone
    if recipe(name).version != version:
        raise Refused(
            f"planned with version {version} of backbone {name}, but here is {recipe(name).version}: "
            "submit the run again"
        )
    return architecture
