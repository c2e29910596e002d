"""One random stream per picture and purpose, so that no number depends on how pictures are sharded."""

import numpy as np

from early_exit.vocabulary import GAUSSIAN_BLUR, GAUSSIAN_NOISE, PRISTINE

# These codes are part of every stored result: add to them, never change or reuse one.
STAGE_CODES = {"distort": 1, "spectra": 2, "features": 3, "batches": 4}
KIND_CODES = {PRISTINE: 0, GAUSSIAN_BLUR: 1, GAUSSIAN_NOISE: 2}


def generator(seed: int, stage: str, image: int, kind: str, level: int, view: int) -> np.random.Generator:
    """The generator of one view of one image of one distortion in one stage.

    All numbers are non-negative integers: ``image`` is the image's index in the dataset, ``level`` the
    distortion's (0 where the stream itself draws the level), ``view`` counts the augmented views.
    Two calls with equal arguments give equal streams, calls that differ anywhere independent ones.
    Raises ValueError for an unknown stage or kind.
    """
    if stage not in STAGE_CODES:
        raise ValueError(f"unknown stage {stage!r}: random numbers are drawn in {', '.join(STAGE_CODES)}")
    if kind not in KIND_CODES:
        raise ValueError(f"unknown distortion kind {kind!r}: it is one of {', '.join(KIND_CODES)}")
    return np.random.default_rng([seed, STAGE_CODES[stage], image, KIND_CODES[kind], level, view])
