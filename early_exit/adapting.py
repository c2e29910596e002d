"""Experts with a backbone of their own, as the released code trains them (docs/paper.md §6).

Either the heads learn, and the frozen backbone's BatchNorm drifts; or all layers learn, the "total" variant.
"""

from __future__ import annotations

from dataclasses import dataclass

from early_exit.batches import TrainingData, View
from early_exit.checkpoint import Arrays
from early_exit.determinism import set_deterministic
from early_exit.network import Backbone, load_heads
from early_exit.settings import Training
from early_exit.training import BackboneWithHeads, Fit, Setup, fit, image_batches, optimizer_of


@dataclass(frozen=True)
class Adapting:
    """What an expert starts from, and whether its backbone learns."""

    backbone: Backbone
    heads: Arrays
    backbone_learning_rate: float = 0.0
    """Peak for the backbone, beside the heads' own; 0: all its weights are frozen."""


def adapt(start: Adapting, data: TrainingData, view: View, training: Training, setup: Setup) -> Fit:
    """Train the heads on fresh views in every epoch, the backbone in train mode.

    BatchNorm then normalises with each batch's statistics and keeps updating its running ones, which validation
    uses. ``data``: uint8 images (N, H, W, 3); those of validation are distorted already. The fit's weights are
    ``backbone.features.*`` and ``heads.exits.*``.
    """
    set_deterministic(setup.threads)
    model = BackboneWithHeads(start.backbone, load_heads(start.heads))
    # frozen weights leave BatchNorm's statistics free: they are buffers, not parameters
    model.backbone.requires_grad_(start.backbone_learning_rate > 0)
    model = model.on(setup.device)
    batches = image_batches(data, view, training, setup)
    optimizer = optimizer_of(model, training, rates={"backbone": start.backbone_learning_rate})
    return fit(model, optimizer, batches, training, setup)
