"""The pooled vectors of the four exits: all that heads need of an image, computed once (docs/paper.md §5)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from early_exit.determinism import set_deterministic
from early_exit.network import Backbone

MEAN = (0.457342265910642, 0.4387686270106377, 0.4073427106250871)
STD = (0.26753769276329037, 0.2638145880487105, 0.2776826934044154)
"""Of Caltech-256 in RGB, values in [0, 1] (docs/paper.md §2)."""

CUDA_BATCH = 64
SMALL_BATCH, SMALL_SIDE = 8, 128
"""On a CPU, images below ``SMALL_SIDE`` pixels run eight at a time, four times faster than single ones
(torch takes a slow path for small single maps); for larger ones the caches make single ones as fast."""


def normalise(images: np.ndarray) -> Tensor:
    """uint8 RGB images (N, H, W, 3) to a float32 tensor (N, 3, H, W): ([0, 1] − mean) / std per channel.

    The memory stays channels last, which is faster for convolutions on a CPU.
    """
    mean, std = torch.tensor(MEAN), torch.tensor(STD)  # (3,)
    # in place from here on: one float32 copy of the images instead of three
    scaled = torch.tensor(images).to(torch.float32).div_(255.0)  # (N, H, W, 3): the last axis meets the (3,)
    return scaled.sub_(mean).div_(std).permute(0, 3, 1, 2)  # (N, 3, H, W), a view: nothing is moved


def extract(
    backbone: Backbone, images: np.ndarray, device: str = "cpu", threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of the four exits, float32 (N, D_k), of uint8 images (N, H, W, 3).

    ``backbone`` is one from ``fold_batchnorm``; it is moved to ``device``.
    """
    set_deterministic(threads)
    backbone = backbone.to(device).eval()
    columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
    with torch.inference_mode():
        for batch, count in batches(images, device):
            for column, vector in zip(columns, backbone(batch), strict=True):
                column.append(vector[:count].cpu().numpy())  # (count, D_k): without the padding
    # no images give arrays too, (0, D_k)
    empty = [np.empty((0, size), np.float32) for size in backbone.pooled_sizes]
    first, second, third, final = (np.concatenate([e, *c]) for e, c in zip(empty, columns, strict=True))
    return first, second, third, final


def batches(images: np.ndarray, device: str) -> Iterator[tuple[Tensor, int]]:
    """Normalised batches (B, 3, H, W) of images on ``device``, and how many of each are not padding.

    On a CPU every batch has the same size, the last one padded with black images, so that an image's
    bits depend on no other image.
    """
    size = _batch_size(images, device)
    for start in range(0, len(images), size):
        some = images[start : start + size]  # (B, H, W, 3); the last may be shorter
        missing = size - len(some) if device == "cpu" else 0
        filled = np.concatenate([some, np.zeros((missing, *some.shape[1:]), np.uint8)])
        yield normalise(filled).to(device), len(some)


def _batch_size(images: np.ndarray, device: str) -> int:
    if device != "cpu":
        return CUDA_BATCH
    return SMALL_BATCH if max(images.shape[1:3]) < SMALL_SIDE else 1
