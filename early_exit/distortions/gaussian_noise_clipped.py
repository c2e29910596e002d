"""Gaussian noise that is clipped, as a camera's is: the paper's without its overflow (docs/paper.md §13)."""

import numpy as np
from numpy.typing import NDArray

from early_exit.distortion import Distortion


def gaussian_noise_clipped(
    image: NDArray[np.uint8], sigma: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Add independent N(0, σ²) to every channel of every pixel of (H, W, 3), clipped to 0–255.

    As ``gaussian_noise``, fractions cut off: from the same generator the two differ only where that one wraps
    around. ``sigma`` is in grey levels.
    """
    # drawn just as ``gaussian_noise`` draws it: the two may differ by the clipping alone
    noise = rng.standard_normal(image.shape)
    # clipped while still float: uint8 would wrap
    return np.clip(image + sigma * noise, 0, 255).astype(np.uint8)


DISTORTION = Distortion(
    gaussian_noise_clipped,
    range(1, 256),
    name="clipped noise",
    axis="σ of the clipped noise, grey levels of 255",
    random=True,
    expert="gaussian_noise",
)
