"""The Fourier spectra that the distortion classifier works on: ours, and the two of the released code."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from early_exit.images import resize_to, through_jpeg

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B. The released training script swaps R and B (docs/paper.md §12, oddity 16)."""


def spectrum(image: NDArray[np.uint8], size: int) -> NDArray[np.float16]:
    """log(1 + |F|) of the luma of uint8 RGB (H, W, 3), zero frequency in the middle: (size, size).

    The image is resized to ``size`` and cropped first (an image of that size is used unchanged); F is
    the unnormalised 2-D Fourier transform of values 0–255, so the result lies in [0, log(1 + 255·size²)]:
    at most 16.4 at 224. Source: docs/paper.md §4, with oddities 16 and 17 corrected. float16 halves storage and
    changes no value by more than 0.008 (0.004 below 16): a sixth of 1/20, the step of the released code's 8-bit
    spectra.
    """
    luma = resize_to(image, size) @ LUMA  # (size, size)
    frequencies = np.fft.fftshift(np.fft.fft2(luma))  # (size, size), complex
    return np.log1p(np.abs(frequencies)).astype(np.float16)


def released_spectrum(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """What the released edge computes: 20·ln|F| of the luma of uint8 RGB (H, W, 3), cast to 8 bits: (size, size).

    The cast truncates and wraps around above 255 (some bins around zero frequency); ln 0 becomes 0. Source:
    docs/paper.md §4.
    """
    luma = cv2.cvtColor(resize_to(image, size), cv2.COLOR_RGB2GRAY)
    return _in_8_bits(np.asarray(luma))


def released_training_spectrum(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """As ``released_spectrum``, for training: the weights of R and B are swapped, and the result is saved as JPEG."""
    # BGR weights on an RGB array: this is the swap
    luma = cv2.cvtColor(resize_to(image, size), cv2.COLOR_BGR2GRAY)
    return through_jpeg(_in_8_bits(np.asarray(luma)))


def _in_8_bits(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    magnitudes = np.abs(np.fft.fftshift(np.fft.fft2(luma)))  # (size, size)
    # ln 0 is left at 0 instead of −∞, of which a cast to integers is undefined
    logarithms = 20 * np.log(magnitudes, where=magnitudes > 0, out=np.zeros_like(magnitudes))
    # the wrap written out, as C leaves the cast of a large float to uint8 open
    return (logarithms.astype(np.int64) & 0xFF).astype(np.uint8)


def brightest(size: int, *, released: bool) -> float:
    """What a spectrum of this size is divided by to lie in [0, 1]."""
    return 255.0 if released else math.log(1 + 255 * size**2)


def in_grey_levels(spectra: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Spectra (N, size, size) as 0–255: value / log(1 + 255·size²) · 255, rounded; uint8 spectra are unchanged.

    The divisor is the largest value that a spectrum can have, so that a grey level means the same in all.
    """
    largest = brightest(spectra.shape[-1], released=spectra.dtype == np.uint8)
    # float64: float16's eleven bits could round to the level beside
    return np.rint(spectra.astype(np.float64) / largest * 255).astype(np.uint8)
