"""Which code computes a job: the stage's version and the releases of its libraries, as its key holds them."""

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping

from tasks.params import STAGES

LIBRARIES = {
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "pillow": ("pillow",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
}
"""Distributions that provide a library, the usual one first."""


@functools.cache
def releases() -> Mapping[str, str]:
    """Major.minor of every library that keys name, from its metadata: nothing is imported."""
    found = {}
    for library, distributions in LIBRARIES.items():
        for distribution in distributions:
            try:
                version = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
            found[library] = ".".join(version.split(".")[:2])  # a patch release counts as the same code
            break
    return found


def code_of(stage: str) -> str:
    """What this installation would compute a job of ``stage`` with, as in ``sweep 1, numpy 2.4``."""
    params, installed = STAGES[stage], releases()
    named = (f"{library} {installed.get(library, 'absent')}" for library in params.libraries)
    return ", ".join([f"{stage} {params.version}", *named])


def codes() -> tuple[str, ...]:
    """``code_of`` every stage."""
    return tuple(code_of(stage) for stage in STAGES)


def queue_of(queue: str, code: str) -> str:
    """The name in the broker of the queue for jobs that need ``code``: only workers that have it listen there."""
    digest = hashlib.sha256(code.encode()).hexdigest()[:8]
    return f"{queue}.{code.split(' ')[0]}.{digest}"


def queues_of(queue: str) -> list[str]:
    """The names in the broker of all queues whose jobs this installation computes."""
    return [queue_of(queue, code) for code in codes()]
