"""The paper's two distortions of a picture (spec §3): Gaussian blur and wrap-around Gaussian noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

from early_exit.vocabulary import GAUSSIAN_BLUR, GAUSSIAN_NOISE, KINDS, PRISTINE


def wrap(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Cast floats to uint8: truncate towards zero, then modulo 256, clipping nothing (spec §3).

    256.2 becomes 0, −1.2 becomes 255, −0.5 becomes 0. ``values`` are finite, of any shape, below 2³¹ in
    magnitude. It is what the released code's plain cast does on x86-64, written out because C leaves the cast
    of a negative float to uint8 undefined and ARM saturates.
    """
    whole = values.astype(np.int32)  # truncates towards zero
    return (whole & 0xFF).astype(np.uint8)  # two's complement: modulo 256 for negative numbers too


def gaussian_blur(picture: NDArray[np.uint8], sigma: int) -> NDArray[np.uint8]:
    """Blur (H, W, 3) with a (4σ+1)×(4σ+1) kernel; what lies outside the picture is black (spec §3).

    ``sigma`` is in pixels; the paper's levels are 1 to 5.
    """
    side = 4 * sigma + 1
    blurred = cv2.GaussianBlur(picture, (side, side), sigma, sigmaY=sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred, dtype=np.uint8)


def gaussian_noise(picture: NDArray[np.uint8], sigma: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add independent N(0, σ²) to every channel of every pixel of (H, W, 3), wrapping around (spec §3).

    ``sigma`` is in grey levels of 0–255; the paper's levels are 5, 10, 20, 30 and 40.
    """
    noise = rng.standard_normal(picture.shape)
    return wrap(picture + sigma * noise)


def distort(picture: NDArray[np.uint8], kind: str, level: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Distort uint8 (H, W, 3); the level is the distortion's σ.

    The pristine kind and level 0 give back ``picture`` itself, not a copy. Only noise draws from ``rng``.
    Raises ValueError for an unknown kind or a negative level.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown distortion kind {kind!r}: it is one of {', '.join(KINDS)}")
    if level < 0:
        raise ValueError(f"distortion level {level} is negative: it is a σ, 0 for none")
    if kind == PRISTINE or level == 0:
        return picture
    if kind == GAUSSIAN_BLUR:
        return gaussian_blur(picture, level)
    assert kind == GAUSSIAN_NOISE
    return gaussian_noise(picture, level, rng)
