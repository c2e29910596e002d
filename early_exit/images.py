"""Decode an image file, crop and resize it to a square, and augment it for training; all images are uint8 RGB."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, UnidentifiedImageError

from early_exit.errors import EarlyExitError

MAX_BYTES = 50_000_000
MAX_PIXELS = 50_000_000  # 150 MB as RGB
MAX_SIDE = 16_384
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# without F: nothing says between which two floats a pixel lies
MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "I",
    "I;16",
    "I;16B",
)

MARGIN = 1.1
"""The shorter side before the centre crop, relative to the crop: 330 pixels for 300 (docs/paper.md §3)."""

MAX_RATIO = 8
"""An image longer than this many times its width is cropped to its middle before it is resized, so that a strip
of 1×16,384 pixels does not become 330×5,406,720."""


class ImageError(EarlyExitError, ValueError):
    """These bytes cannot be decoded to a complete image."""


def check_decodes(data: bytes) -> None:
    """Decode all pixels of an image file and discard them; raises ImageError as ``decode`` does.

    Uses Pillow, because OpenCV returns a full-sized array for a truncated file.
    """
    _load(data)


def decode(data: bytes) -> NDArray[np.uint8]:
    """The RGB pixels (H, W, 3) of an image file.

    EXIF rotation is not applied, as in ImageFolder's loader. Transparent images are composited on white; 16-bit
    greys keep their upper 8 bits. Raises ImageError if the bytes are not an image, are damaged, hold more than
    one frame, have a format or pixel type not listed above, or exceed 50 MB, 50 megapixels or 16,384 pixels on
    a side; sizes are checked in the header, before any pixel is decoded.
    """
    loaded = _load(data)
    if loaded.mode.startswith("I"):
        # from int32, or from 16 bits of either byte order
        greys = (np.asarray(loaded, dtype=np.int64) >> 8).astype(np.uint8)
        return np.repeat(greys[:, :, np.newaxis], 3, axis=2)  # (H, W, 3)
    if loaded.has_transparency_data:
        loaded = loaded.convert("RGBA")
        loaded = Image.alpha_composite(Image.new("RGBA", loaded.size, "white"), loaded)
    return np.array(loaded.convert("RGB"), dtype=np.uint8)


def _load(data: bytes) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise ImageError(f"{len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_header(opened)
        opened.load()  # decodes the pixels, of which ``open`` reads none
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image in any of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's readers raise exceptions of any type on damaged bytes
        raise ImageError(f"cannot be decoded: {error}") from error
    if opened.mode == "I":  # int32 in memory, whatever the file's own depth
        greys = np.asarray(opened)
        if greys.min() < 0 or greys.max() > 0xFFFF:
            raise ImageError(f"grey values {greys.min()} to {greys.max()} do not fit 16 bits")
    return opened


def _check_header(opened: Image.Image) -> None:
    width, height = opened.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"{width}×{height} pixels; at most {MAX_SIDE:,} on a side and {MAX_PIXELS:,} in total are read"
        )
    if opened.mode not in MODES:
        raise ImageError(f"pixels of type {opened.mode} have no defined range of brightness")
    # A camera's MPO file is a JPEG whose further frames are previews: its first frame is the photograph.
    if opened.format != "MPO" and getattr(opened, "is_animated", False):
        raise ImageError("more than one frame; only still images are read")


def fit(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The network's input (size, size, 3): shorter side to round(1.1·size), then a centre crop (docs/paper.md §3).

    Antialiased bilinear; not resampled if the shorter side already has that length.
    """
    return _resize_and_crop(image, round(MARGIN * size), size)


def squash(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The whole image as (size, size, 3), whatever its shape: the released training's resize (docs/paper.md §6)."""
    scaled = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(scaled, dtype=np.uint8)


def through_jpeg(pixels: NDArray[np.uint8], quality: int = 75) -> NDArray[np.uint8]:
    """uint8 (H, W) or RGB (H, W, 3) as it comes back from a JPEG file; 75 is Pillow's default quality."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file, formats=("JPEG",)), dtype=np.uint8)


def resize_to(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Shorter side to ``size``, then a centre crop (size, size, 3), as the input of a spectrum (docs/paper.md §4).

    A square image of that size is returned unchanged.
    """
    return _resize_and_crop(image, size, size)


def _resize_and_crop(image: NDArray[np.uint8], shorter: int, size: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    limit = MAX_RATIO * min(height, width)
    if max(height, width) > limit:
        image = _centre(image, min(height, limit), min(width, limit))
        height, width = image.shape[:2]
    if min(height, width) != shorter:
        # The longer side is truncated, as torchvision's Resize does.
        scaled_height = shorter * height // min(height, width)
        scaled_width = shorter * width // min(height, width)
        # Pillow names the width first, numpy the height
        scaled = Image.fromarray(image).resize((scaled_width, scaled_height), Image.Resampling.BILINEAR)
        image = np.array(scaled, dtype=np.uint8)
    return _centre(image, size, size)


def _centre(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    # rounded as torchvision's CenterCrop does
    top = round((image.shape[0] - height) / 2)
    left = round((image.shape[1] - width) / 2)
    # rows without gaps; mostly a copy, which lets go of the whole image
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def augment(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A training view of uint8 (H, W, 3), of the same shape; applied after the distortion (docs/paper.md §6).

    Half of the views have their brightness scaled by 0.8 to 1.2; of the others a quarter turn grey. All are mirrored
    with probability 0.25 and rotated by up to 25° either way (nearest pixel, black outside). Always draws five
    numbers from ``rng``.
    """
    # drawn even where unused: what the stream gives next must not depend on them
    jitters, grey, mirrored = rng.random() < 0.5, rng.random() < 0.25, rng.random() < 0.25
    brightness, degrees = rng.uniform(0.8, 1.2), rng.uniform(-25.0, 25.0)
    view = Image.fromarray(image)
    if jitters:
        view = ImageEnhance.Brightness(view).enhance(brightness)
    elif grey:
        view = view.convert("L").convert("RGB")  # three equal channels
    if mirrored:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(view.rotate(degrees, Image.Resampling.NEAREST), dtype=np.uint8)
