"""JPEG compression: what an image loses on its way to the edge."""

import numpy as np
from numpy.typing import NDArray

from early_exit.distortion import Distortion


def jpeg(image: NDArray[np.uint8], level: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W, 3) as it comes back from a JPEG file of quality 100 − ``level``, so that higher is worse.

    Pillow's settings otherwise: colour at half the resolution.
    """
    from early_exit.images import through_jpeg  # here, since planning reads this file too

    return through_jpeg(image, quality=100 - level)


DISTORTION = Distortion(jpeg, range(1, 100), name="JPEG", axis="JPEG: 100 − quality")  # quality 99 to 1
