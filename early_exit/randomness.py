"""One random stream per image and purpose, so that no number depends on how images are sharded."""

import hashlib

import numpy as np

from early_exit.distortion import distortion
from early_exit.vocabulary import PRISTINE

# These codes are part of every stored result: add to them, never change or reuse one.
STAGE_CODES = {"distort": 1, "spectra": 2, "features": 3, "batches": 4}
KIND_CODES = {PRISTINE: 0, "gaussian_blur": 1, "gaussian_noise": 2, "gaussian_noise_clipped": 2}
"""Clipped noise is the same noise, so that two results differ by the clipping alone. Other kinds are coded by name."""


def generator(seed: int, stage: str, image: int, kind: str, level: int, view: int) -> np.random.Generator:
    """The generator of one view of one image of one distortion in one stage.

    All numbers are non-negative integers: ``image`` is the image's index in the dataset, ``level`` the
    distortion's (0 where the stream itself draws the level), ``view`` counts the augmented views.
    Calls with equal arguments give equal streams; calls that differ in any argument, independent ones.
    Raises ValueError for an unknown stage or kind.
    """
    if stage not in STAGE_CODES:
        raise ValueError(f"unknown stage {stage!r}: random numbers are drawn in {', '.join(STAGE_CODES)}")
    # numpy hashes the whole list: streams of neighbouring images are unrelated
    return np.random.default_rng([seed, STAGE_CODES[stage], image, _code(kind), level, view])


def _code(kind: str) -> int:
    """The kind's number in ``KIND_CODES``, else the first eight bytes of its name's SHA-256."""
    if kind in KIND_CODES:
        return KIND_CODES[kind]
    distortion(kind)  # raises for a kind that has no file
    # not ``hash``, which differs from process to process
    return int.from_bytes(hashlib.sha256(kind.encode()).digest()[:8])
