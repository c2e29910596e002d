"""What a distortion is, which ones exist, and how an image is distorted; ``distortions/`` has a file for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from early_exit import distortions
from early_exit.errors import EarlyExitError
from early_exit.plugins import Plugins
from early_exit.vocabulary import PRISTINE


class UnknownDistortion(EarlyExitError, ValueError):
    """No file has this kind's name, or it declares no distortion."""


@dataclass(frozen=True)
class Distortion:
    """One kind of distortion, as its file declares it: the constant ``DISTORTION`` of ``distortions/KIND.py``.

    Planning reads it, so such a file imports OpenCV and Pillow inside its function.
    """

    apply: Callable[[NDArray[np.uint8], int, np.random.Generator], NDArray[np.uint8]]
    """Takes an image, uint8 RGB (H, W, 3), a level and a generator; returns a new image of the same shape."""
    levels: range
    """What a level may be: whole numbers from 1 on, a higher one is worse. 0 is no distortion."""
    name: str
    """For people, in figures."""
    axis: str
    """What a level is, with its unit, under the axis of a figure."""
    random: bool = False
    """Whether ``apply`` draws random numbers, so that images differ by seed."""
    expert: str | None = None
    """The kind whose expert answers, ``pristine`` included, for one that is evaluated only; None for its own."""
    version: int = 1
    """Raised when output changes, so that results of the older code are not reused."""


_FILES = Plugins(distortions, "distortion kind", "DISTORTION", Distortion, UnknownDistortion)


@cache
def known() -> tuple[str, ...]:
    """All kinds that have a file, in alphabetical order; nothing is loaded."""
    return _FILES.names()


@cache
def distortion(kind: str) -> Distortion:
    """What the file of ``kind`` declares; raises UnknownDistortion where there is none."""
    return _FILES.load(kind)


def expert_of(kind: str) -> str:
    """The expert that was trained for ``kind``, or that answers for it where it has none of its own."""
    return PRISTINE if kind == PRISTINE else distortion(kind).expert or kind


def version_of(kind: str) -> int:
    """The version of ``kind`` that jobs hold in their keys; 0 for pristine, which no file computes."""
    return 0 if kind == PRISTINE else distortion(kind).version


def distort(image: NDArray[np.uint8], kind: str, level: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Distort uint8 RGB (H, W, 3) at a level of ``kind``.

    The pristine kind and level 0 give back ``image`` itself, not a copy. Raises ValueError for an unknown
    kind or a level that it does not have.
    """
    if kind == PRISTINE:
        return image
    declared = distortion(kind)  # before the level: an unknown kind raises at level 0 too
    if level == 0:
        return image
    if level not in declared.levels:
        raise ValueError(f"distortion {kind} has no level {level}: {allowed(declared)}, 0 for none")
    return declared.apply(image, level, rng)


def allowed(declared: Distortion) -> str:
    """The levels that are allowed, as in ``its levels are 1 to 255``."""
    return f"its levels are {declared.levels[0]} to {declared.levels[-1]}"
