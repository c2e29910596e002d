"""Gaussian blur with darkness around the image, as in the paper (docs/paper.md §3)."""

import numpy as np
from numpy.typing import NDArray

from early_exit.distortion import Distortion


def gaussian_blur(image: NDArray[np.uint8], sigma: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur (H, W, 3) with a (4σ+1)×(4σ+1) kernel; what lies outside the image is black (docs/paper.md §3).

    ``sigma`` is in pixels; the paper's levels are 1 to 5.
    """
    import cv2  # here, since planning reads this file too

    side = 4 * sigma + 1  # 2σ either way; odd, as OpenCV demands
    blurred = cv2.GaussianBlur(image, (side, side), sigma, sigmaY=sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred, dtype=np.uint8)


DISTORTION = Distortion(gaussian_blur, range(1, 256), name="blur", axis="σ of the blur, pixels")
