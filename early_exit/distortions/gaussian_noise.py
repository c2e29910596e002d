"""Gaussian noise that wraps around instead of being clipped, as in the released code (docs/paper.md §3)."""

import numpy as np
from numpy.typing import NDArray

from early_exit.distortion import Distortion


def wrap(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Cast floats to uint8: truncate towards zero, then modulo 256, clipping nothing (docs/paper.md §3).

    256.2 becomes 0, −1.2 becomes 255, −0.5 becomes 0. ``values`` are finite, of any shape, below 2³¹ in
    magnitude. It is what the released code's plain cast does on x86-64, written out because C leaves the cast
    of a negative float to uint8 undefined and ARM saturates.
    """
    whole = values.astype(np.int32)  # truncates towards zero
    return (whole & 0xFF).astype(np.uint8)  # two's complement: modulo 256 for negative numbers too


def gaussian_noise(image: NDArray[np.uint8], sigma: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add independent N(0, σ²) to every channel of every pixel of (H, W, 3), wrapping around (docs/paper.md §3).

    ``sigma`` is in grey levels of 0–255; the paper's levels are 5, 10, 20, 30 and 40.
    """
    noise = rng.standard_normal(image.shape)  # (H, W, 3)
    return wrap(image + sigma * noise)  # uint8 + float64 is float64: nothing overflows before the wrap


DISTORTION = Distortion(
    gaussian_noise, range(1, 256), name="noise", axis="σ of the noise, grey levels of 255", random=True
)
