"""The network that a job was planned with."""

from early_exit.backbones import version_of
from early_exit.network import Architecture
from tasks.job_io import Refused
from tasks.params import AdaptExpert, Features, Measure, PayloadAccuracy, TrainBackbone


def planned(
    params: TrainBackbone | AdaptExpert | Features | Measure | PayloadAccuracy, version: int
) -> Architecture:
    """The architecture of a job; ``version``: of the backbone's file, as the key of its weights has it.

    Refuses to compute with another version of the file, whose results would stand under that key.
    """
    name = params.architecture.backbone
    if version_of(name) != version:
        raise Refused(
            f"planned with version {version} of backbone {name}, but here is {version_of(name)}: "
            "submit the run again"
        )
    return Architecture(**vars(params.architecture), drop_blocks=params.drop_blocks)
