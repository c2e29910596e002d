"""The built-in dataset: drawn letters and digits, for runs without photographs."""

import shutil
import uuid
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

GLYPHS = "AHEMRSXZ38"
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)
MAX_DEGREES = 20.0
DARK, LIGHT = (0.0, 110.0), (140.0, 255.0)
"""Ranges of R, G and B for dark and light colours: the glyph is one, its background the other."""


def draw(folder: Path, images: int, size: int, seed: int) -> None:
    """Write an ImageFolder of ``images`` PNG files of size×size pixels, the same number per glyph.

    The pixels depend only on ``seed``, the class and the file's number. The folder is written atomically: under a
    temporary name, then renamed. An existing folder is left unchanged, so name it after the arguments.
    Raises ValueError unless ``images`` is a positive multiple of ten.
    """
    if images <= 0 or images % len(GLYPHS):
        raise ValueError(f"{images} synthetic images cannot be divided equally among {len(GLYPHS)} classes")
    if folder.exists():
        return
    # beside the folder: a rename is atomic only within one file system
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        for label, glyph in enumerate(GLYPHS):
            (unfinished / glyph).mkdir(parents=True)
            for index in range(images // len(GLYPHS)):
                image = draw_glyph(glyph, size, np.random.default_rng([seed, label, index]))
                # OpenCV writes BGR
                _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                (unfinished / glyph / f"{index:04d}.png").write_bytes(encoded.tobytes())
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster, with the same images
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def draw_glyph(glyph: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One glyph on a shaded background: uint8 RGB (size, size, 3).

    Font, height, stroke, place, rotation (up to 20° either way), shading and colours are drawn from ``rng``.
    OpenCV 4 draws the four Hershey fonts as strokes, OpenCV 5 in two weights of its own typeface: the images, and
    so the digest of the dataset, depend on its version.
    """
    ink = _glyph_ink(glyph, size, rng)[:, :, np.newaxis]  # (size, size, 1)
    start, end, colour = _colours(rng)
    shade = _shading(size, rng)[:, :, np.newaxis]  # (size, size, 1)
    background = start + shade * (end - start)  # (size, size, 3)
    mixed = background + ink * (colour - background)  # (size, size, 3)
    return np.rint(mixed).astype(np.uint8)


def _glyph_ink(glyph: str, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The share of each pixel that the glyph covers: (size, size) in [0, 1]."""
    font = FONTS[rng.integers(len(FONTS))]
    thickness = max(1, round(size * rng.uniform(0.03, 0.06)))
    # a font's scale is no height: that of this glyph is measured, then scaled
    height_at_scale_1 = cv2.getTextSize(glyph, font, 1.0, thickness)[0][1]
    scale = size * rng.uniform(0.45, 0.6) / height_at_scale_1
    (width, height), _ = cv2.getTextSize(glyph, font, scale, thickness)
    left, bottom = round((size - width) / 2), round((size + height) / 2)
    upright = np.zeros((size, size), np.uint8)
    cv2.putText(upright, glyph, (left, bottom), font, scale, 255, thickness, cv2.LINE_AA)
    middle = (size / 2, size / 2)
    degrees = rng.uniform(-MAX_DEGREES, MAX_DEGREES)
    motion = np.asarray(cv2.getRotationMatrix2D(middle, degrees, 1.0), dtype=np.float64)
    motion[:, 2] += rng.uniform(-0.07, 0.07, 2) * size  # of (2, 3), the last column is the shift
    return np.asarray(cv2.warpAffine(upright, motion, (size, size)), dtype=np.float64) / 255


def _shading(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A ramp from 0 to 1 in a random direction: (size, size)."""
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, size)  # (size,)
    ramp = np.cos(angle) * across[np.newaxis, :] + np.sin(angle) * across[:, np.newaxis]  # (size, size)
    return np.asarray((ramp - ramp.min()) / (ramp.max() - ramp.min()))


def _colours(rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Both ends of the background's shading and the glyph's colour: RGB in [0, 255]."""
    dark, light = rng.uniform(*DARK, (2, 3)), rng.uniform(*LIGHT, (2, 3))  # (2, 3): two colours each
    if rng.random() < 0.5:
        return light[0], light[1], dark[0]
    return dark[0], dark[1], light[0]
