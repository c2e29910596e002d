"""Backbone weights as plain arrays: reading, checking, what a MobileNetV2 needs, torchvision's download.

No torch here, so that a submit can refuse a bad file in milliseconds. The one exception runs in a
subprocess of its own: converting torchvision's pickled ImageNet download.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from early_exit.errors import EarlyExitError, OutOfReach

IMAGENET_URL = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
"""torchvision's MobileNet_V2_Weights.IMAGENET1K_V1, the weights that torchvision gave in 2021."""

IMAGENET_SHA256 = "b0353104"
"""How the SHA-256 of that file starts: torchvision's file names carry eight digits of it."""

MAX_FILE_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 2**20  # MobileNetV2's 312 entries take 37 kB

SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2's rows: expansion, channels, blocks, stride of the first."""


class WeightsError(EarlyExitError, ValueError):
    """These are not weights of this backbone."""


class WeightsOutOfReach(OutOfReach, WeightsError):
    """The server of the weights does not answer."""


def expected_shapes(width: float) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of ``features.*`` in torchvision's MobileNetV2 of this width.

    312 entries for every width. ``num_batches_tracked`` are int64 scalars, all others float32.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, batch_norm: str, shape: tuple[int, int, int, int]) -> None:
        shapes[f"features.{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):  # one per output channel
            shapes[f"features.{batch_norm}.{part}"] = shape[:1]
        shapes[f"features.{batch_norm}.num_batches_tracked"] = ()

    channels = _channels(32, width)
    convolution("0.0", "0.1", (channels, 3, 3, 3))
    block = 1
    for expansion, out, blocks, _stride in SETTINGS:
        for _ in range(blocks):
            hidden, part = channels * expansion, 0
            if expansion != 1:  # the first block does not expand
                convolution(f"{block}.conv.0.0", f"{block}.conv.0.1", (hidden, channels, 1, 1))
                part = 1
            # depthwise: a filter sees one channel
            convolution(f"{block}.conv.{part}.0", f"{block}.conv.{part}.1", (hidden, 1, 3, 3))
            channels = _channels(out, width)
            convolution(f"{block}.conv.{part + 1}", f"{block}.conv.{part + 2}", (channels, hidden, 1, 1))
            block += 1
    # the last convolution never gets narrower, as in torchvision
    convolution("18.0", "18.1", (_channels(1280, max(1.0, width)), channels, 1, 1))
    return shapes


def _channels(channels: int, width: float) -> int:
    """Channels × width, rounded to a multiple of 8 as MobileNetV2 rounds: never down by over 10 %."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def check_weights(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], network: str
) -> None:
    """Refuse tensors that are not exactly those of ``expected`` names and shapes, a backbone's ``features.*``.

    Raises ``WeightsError`` naming the first tensor that is missing, unexpected, of another shape or dtype, or
    not finite (a running variance must not be negative either). ``network`` is for the message.
    """
    for name in expected:
        if name not in tensors:
            raise WeightsError(
                f"weights: tensor {name!r} is missing; {network} has {len(expected)} tensors, features.*"
            )
    for name in tensors:
        if name not in expected:
            raise WeightsError(f"weights: unexpected tensor {name!r}; give the features.* of {network} only")
    for name, shape in expected.items():
        _check_tensor(name, tensors[name], shape, network)


def _check_tensor(name: str, tensor: np.ndarray, shape: tuple[int, ...], network: str) -> None:
    dtype = "int64" if name.endswith("num_batches_tracked") else "float32"
    if tensor.shape != shape:
        raise WeightsError(f"weights: {name!r} is {tensor.shape}, but {network} has {shape}")
    if tensor.dtype != dtype:
        raise WeightsError(f"weights: {name!r} is {tensor.dtype}, not {dtype}")
    if not np.isfinite(tensor).all():
        raise WeightsError(f"weights: {name!r} holds a value that is not finite")
    if name.endswith("running_var") and (tensor < 0).any():
        raise WeightsError(f"weights: {name!r} holds a negative variance")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file, by name; ``check_weights`` says whether they fit a backbone.

    Raises ``WeightsError`` for a file that is missing, not regular, empty, too large, not safetensors
    (a pickled ``.pt`` and an HTML page are named as such), or without ``features.*`` tensors.
    """
    return parse_weights(read_file(path), str(path))


def parse_weights(data: bytes, name: str) -> dict[str, np.ndarray]:
    """As ``read_weights``, of the file's bytes; ``name`` is for the message."""
    _check_header(data, name)
    try:
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"weights {name!r}: not a readable safetensors file: {error}") from None
    if not any(key.startswith("features.") for key in tensors):
        raise WeightsError(f"weights {name!r}: no tensor is named features.*; give a backbone's features.*")
    return tensors


def read_file(path: Path) -> bytes:
    """The bytes of a weights file; ``WeightsError`` for one that is missing, not regular or too large."""
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise WeightsError(f"weights '{path}': not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise WeightsError(
                    f"weights '{path}': {status.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}"
                )
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise WeightsError(f"weights '{path}': {error.strerror}") from None


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a FIFO must not wait for its writer


def _check_header(data: bytes, name: str) -> None:
    """Say what the bytes are when they are no safetensors file; bound its header before parsing."""
    convert = "save the state dict's features.* with safetensors.torch.save_file"
    if not data:
        raise WeightsError(f"weights {name!r}: the file is empty")
    # torch's zip archives, or the bare pickles before them
    if data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
        raise WeightsError(f"weights {name!r}: a pickled torch file, which could run code; {convert}")
    if data[:512].lstrip()[:1] == b"<":
        raise WeightsError(f"weights {name!r}: an HTML or XML page, not weights; download the file itself")
    # safetensors: eight bytes of the header's length, then the header in JSON
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise WeightsError(f"weights {name!r}: not a safetensors file, or cut short; {convert}")
    if length > MAX_HEADER_BYTES:
        raise WeightsError(
            f"weights {name!r}: a header of {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}"
        )
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):  # the latter from brackets nested too deep
        header = None
    if not isinstance(header, dict):
        raise WeightsError(f"weights {name!r}: not a safetensors file; {convert}")


def imagenet_weights(url: str = IMAGENET_URL, sha256: str = IMAGENET_SHA256) -> dict[str, np.ndarray]:
    """Download torchvision's MobileNetV2 and return its ``features.*``, checked for width 1.

    The file must have a SHA-256 that starts with ``sha256``. It is a pickle, so a short subprocess
    opens it, with ``weights_only=True``. Raises ``WeightsError``: unreachable, other bytes, unreadable.
    """
    with tempfile.TemporaryDirectory(prefix="imagenet-") as folder:
        pickled, converted = Path(folder, "weights.pth"), Path(folder, "weights.safetensors")
        pickled.write_bytes(_download(url, sha256))
        # isolated: no environment variable or user folder adds code to the pickle's process
        command = [sys.executable, "-I", __file__, str(pickled), str(converted)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            # a traceback ends with its message
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise WeightsError(f"weights {url!r}: cannot be converted: {reason}")
        tensors = read_weights(converted)
    check_weights(tensors, expected_shapes(1.0), "a MobileNetV2")
    return tensors


def _download(url: str, sha256: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            data: bytes = reply.read(MAX_FILE_BYTES)
    except (urllib.error.URLError, OSError) as error:
        raise WeightsOutOfReach(
            f"weights {url!r}: cannot be downloaded: {error}. Download them elsewhere and give the file"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256):
        raise WeightsError(
            f"weights {url!r}: SHA-256 {digest} does not start with {sha256}: it is not that file"
        )
    return data


def _convert(pickled: Path, converted: Path) -> None:
    """Write the ``features.*`` of a pickled state dict as safetensors; runs in its own process only."""
    import torch  # here, so that importing this module stays light

    tensors = torch.load(pickled, map_location="cpu", weights_only=True)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith("features.")}
    safetensors.numpy.save_file(arrays, converted)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
