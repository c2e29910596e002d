"""The Fourier spectrum that the distortion classifier sees; one function for training and for use."""

import numpy as np
from numpy.typing import NDArray

from early_exit.images import resize_to

LUMA = np.array([0.299, 0.587, 0.114])
"""Brightness of R, G and B. The released training script swaps R and B (spec §12, oddity 16)."""


def spectrum(picture: NDArray[np.uint8], size: int) -> NDArray[np.float16]:
    """log(1 + |F|) of the luma of uint8 RGB (H, W, 3), zero frequency in the middle: (size, size).

    The picture is resized to ``size`` and cropped first (a picture of that size is taken as it is); F is
    the unnormalised 2-D Fourier transform of values 0–255, so the result lies in [0, log(1 + 255·size²)]:
    at most 16.4 at 224. Source: spec §4, with its oddities 16 and 17 put right. float16, because it halves
    what is stored and moves no value by more than 0.008 (0.004 below 16): a sixth of a step of the released
    code's 8-bit spectra, which resolve 1/20.
    """
    luma = resize_to(picture, size) @ LUMA
    frequencies = np.fft.fftshift(np.fft.fft2(luma))
    return np.log1p(np.abs(frequencies)).astype(np.float16)
