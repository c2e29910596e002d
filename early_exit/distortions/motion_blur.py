"""Motion blur: the camera moves sideways while the shutter is open."""

import numpy as np
from numpy.typing import NDArray

from early_exit.distortion import Distortion


def motion_blur(image: NDArray[np.uint8], length: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Every pixel of (H, W, 3) as the mean of ``length`` pixels of its row, centred on it; rounded.

    An even length reaches one pixel further to the left. What lies outside the image is black, as in
    ``gaussian_blur``.
    """
    import cv2  # here, since planning reads this file too

    kernel = np.full((1, length), 1 / length)  # one row: it blurs sideways only
    blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)  # -1: uint8, as the image
    return np.asarray(blurred, dtype=np.uint8)


DISTORTION = Distortion(
    # from 2 on: a mean of one pixel changes nothing
    motion_blur,
    range(2, 256),
    name="motion blur",
    axis="length of the motion blur, pixels",
)
