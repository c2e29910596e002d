"""Experts with a backbone of their own, as the released code trains them (docs/paper.md §6).

Either the heads learn, and the frozen backbone's BatchNorm drifts; or all layers learn, the "total" variant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from early_exit.determinism import set_deterministic
from early_exit.features import normalise
from early_exit.network import Backbone, load_heads
from early_exit.training import (
    Arrays,
    BackboneWithHeads,
    Batch,
    Checkpoint,
    Examples,
    Fit,
    Settings,
    batches_of,
    fit,
)

VALIDATION_BATCH = 64
BACKBONE, HEADS = "backbone.", "heads."
"""How the names of a fit's weights start."""

View = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""A training image, uint8 (H, W, 3), as one epoch sees it: distorted or not, augmented or not."""


@dataclass(frozen=True)
class Start:
    """What an expert starts from."""

    backbone: Backbone
    heads: Arrays


def adapt(
    start: Start,
    train: Examples,
    validation: Examples,
    view: View,
    settings: Settings,
    seed: int,
    device: str = "cpu",
    threads: int = 2,
    checkpoint: Checkpoint | None = None,
    fixed_order: bool = False,
    backbone_learning_rate: float = 0.0,
) -> Fit:
    """Train the heads on fresh views in every epoch, the backbone in train mode.

    BatchNorm so normalises with each batch's statistics and keeps updating its running ones, which validation
    uses. ``fixed_order``: shuffled once for all epochs. ``backbone_learning_rate``: the backbone's peak beside the
    heads' ``settings.learning_rate``; at 0 all its weights are frozen. ``validation``'s images are distorted
    already. The fit's weights are ``backbone.features.*`` and ``heads.exits.*``.
    """
    set_deterministic(threads)
    model = BackboneWithHeads(start.backbone, classes=len(start.heads["exits.0.bias"]))
    model.heads = load_heads(start.heads)
    model.backbone.requires_grad_(backbone_learning_rate > 0)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch(images: np.ndarray, labels: np.ndarray) -> Batch:
        return normalise(images).to(device), torch.tensor(labels).to(device)

    def batches(rng: np.random.Generator) -> Iterable[Batch]:
        order = np.random.default_rng(seed) if fixed_order else rng
        for index in batches_of(len(train[1]), settings.batch_size, order):
            yield batch(np.stack([view(image, rng) for image in train[0][index]]), train[1][index])

    def validate() -> Iterable[Batch]:
        order = np.arange(len(validation[1]))
        parts = (order[i : i + VALIDATION_BATCH] for i in order[::VALIDATION_BATCH])
        return (batch(validation[0][part], validation[1][part]) for part in parts)

    steps = math.ceil(len(train[1]) / settings.batch_size)
    factors = {"backbone": backbone_learning_rate / settings.learning_rate}
    return fit(model, batches, validate, steps, settings, seed, checkpoint, rate_factors=factors)
