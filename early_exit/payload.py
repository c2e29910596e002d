"""How an offloaded image's feature map is sent to the cloud, and which answers it then gets (docs/paper.md §11).

``json``: nested lists as text, as in the released code; ``float32``: the raw numbers; ``float16``: rounded to
half precision; ``uint8``: 256 levels between the map's own smallest and largest value.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from early_exit.determinism import set_deterministic
from early_exit.features import batches
from early_exit.network import Backbone, Heads
from early_exit.vocabulary import PAYLOADS

HEADER = np.dtype([("scale", "<f4"), ("zero_point", "<f4")])
"""The eight bytes before the codes of ``uint8``: value = zero_point + scale · code."""


def encode(payload: str, feature_map: np.ndarray) -> bytes:
    """The bytes of one float32 feature map of any shape; the shape is known to both ends.

    Raises ``ValueError`` for an unknown form, and where a value is too large for ``float16``.
    """
    match payload:
        case "json":
            # ``tolist`` gives float64: its many digits make 64 kB of float32 about 331 kB (docs/paper.md §11)
            return json.dumps(feature_map.tolist()).encode()
        case "float32":
            return feature_map.astype("<f4").tobytes()  # little-endian on any machine
        case "float16":
            # beyond it the cast would silently give infinity
            if np.abs(feature_map).max() > np.finfo(np.float16).max:
                raise ValueError("the feature map holds a value beyond 65504: float16 cannot send it")
            return feature_map.astype("<f2").tobytes()
        case "uint8":
            return _quantise(feature_map)
    raise ValueError(f"unknown payload {payload!r}: it is one of {', '.join(PAYLOADS)}")


def decode(payload: str, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 feature map that the cloud gets, of ``shape``; ``json`` and ``float32`` keep every bit."""
    match payload:
        case "json":
            return np.array(json.loads(data), np.float32)
        case "float32":
            # copied: a buffer's array is read-only
            return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
        case "float16":
            return np.frombuffer(data, "<f2").reshape(shape).astype(np.float32)
        case "uint8":
            (header,) = np.frombuffer(data, HEADER, count=1)
            codes = np.frombuffer(data, np.uint8, offset=HEADER.itemsize).reshape(shape)
            scale, zero_point = np.float32(header["scale"]), np.float32(header["zero_point"])
            return codes * scale + zero_point  # float32: uint8 times a float32 scalar
    raise ValueError(f"unknown payload {payload!r}: it is one of {', '.join(PAYLOADS)}")


def _quantise(feature_map: np.ndarray) -> bytes:
    """The bytes of ``uint8``; a map of one value has scale 0 and codes 0."""
    header = np.zeros(1, HEADER)
    header["zero_point"] = low = feature_map.min()
    # in float32, as the header holds it: both ends then use the very same scale
    header["scale"] = scale = (feature_map.max() - low) / np.float32(255)
    # in [0, 255], up to rounding that rint takes away
    codes = np.rint((feature_map - low) / scale) if scale else np.zeros_like(feature_map)
    return header.tobytes() + codes.astype(np.uint8).tobytes()


def final_answers(
    backbone: Backbone, heads: Heads, images: np.ndarray, device: str = "cpu", threads: int = 1
) -> dict[str, np.ndarray]:
    """By payload: the class int64 (N,) that the final exit answers with for uint8 images (N, H, W, 3).

    ``backbone`` is one from ``fold_batchnorm``. Stages 1 to 3 run once; each image's map is then sent by
    itself in every form, and stage 4 and the final head run on what arrives, in batches as in ``extract``.
    """
    set_deterministic(threads)
    backbone, heads = backbone.to(device).eval(), heads.to(device).eval()
    answers: dict[str, list[np.ndarray]] = {payload: [] for payload in PAYLOADS}
    with torch.inference_mode():
        for batch, count in batches(images, device):
            after_3 = backbone.stage(3, backbone.stage(2, backbone.stage(1, batch)))  # (B, C, h, w)
            maps = after_3.cpu().contiguous().numpy()  # channels last until here; payloads hold (C, h, w)
            for payload, found in answers.items():
                arrived = [decode(payload, encode(payload, one), one.shape) for one in maps]  # B × (C, h, w)
                sent = torch.tensor(np.stack(arrived)).to(device)  # (B, C, h, w)
                vectors = backbone.pool(4, backbone.stage(4, sent))  # (B, D_4)
                found.append(heads.exits[3](vectors).argmax(dim=1)[:count].cpu().numpy())  # (count,)
    empty = np.empty(0, np.int64)  # no images give an array too
    return {payload: np.concatenate([empty, *found]) for payload, found in answers.items()}
