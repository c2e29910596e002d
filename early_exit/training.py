"""One resumable training loop, and the two trainings of the early-exit network (docs/paper.md §6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from early_exit.batches import Batches, Inputs, TrainingData, View
from early_exit.checkpoint import Arrays, Checkpoint, Epoch, restore, snapshot, trained
from early_exit.determinism import set_deterministic
from early_exit.errors import Diverged
from early_exit.features import normalise
from early_exit.images import augment
from early_exit.network import Backbone, Heads, load_heads, load_weights, to_arrays
from early_exit.schedules import SCHEDULES
from early_exit.settings import OPTIMIZERS, Architecture, BackboneTraining, Training

VALIDATION_BATCH = 64
DIVERGED_FACTOR = 100.0
"""A mean loss this many times that of guessing (exits × ln classes) will not recover."""


@dataclass(frozen=True)
class Setup:
    """How a training is carried out; its bits depend on all of this but the checkpoint."""

    seed: int
    device: str = "cpu"
    threads: int = 1
    fixed_order: bool = False
    """Shuffled once for all epochs, as the released code's stored split is (docs/paper.md §2)."""
    checkpoint: Checkpoint | None = None

    @property
    def order_seed(self) -> int | None:
        """Seed of the one order; None where every epoch has its own."""
        return self.seed if self.fixed_order else None


@dataclass(frozen=True)
class Fit:
    """A finished training: the weights of the epoch with the lowest validation loss, and every epoch."""

    weights: Arrays
    epochs: tuple[Epoch, ...]
    best_epoch: int

    def weights_of(self, part: str) -> Arrays:
        """Those of one part of the network, ``backbone`` or ``heads``, under their own names."""
        prefix = f"{part}."
        return {name.removeprefix(prefix): a for name, a in self.weights.items() if name.startswith(prefix)}


def exit_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Sum of the exits' cross-entropies, weight 1 each, of logits (N, exits, classes) (docs/paper.md §6)."""
    exits = outputs.shape[1]
    flat = outputs.flatten(0, 1)  # (N · exits, classes), an image's exits side by side
    # one mean over all rows, times the exits: the sum of the means over the images
    return F.cross_entropy(flat, labels.repeat_interleave(exits)) * exits


def optimizer_of(
    model: nn.Module, training: Training, name: str = "adam", rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """One of ``OPTIMIZERS`` for the parameters that are not frozen.

    ``rates``: peak learning rates by the first part of a parameter's name, where they differ from ``training``'s.
    """
    peaks = rates or {}
    groups = [  # one per parameter, so that the factor can differ
        {
            "params": [parameter],
            # the rate itself is set at every step: only its ratio to the peak is kept
            "factor": peaks.get(of.split(".")[0], training.learning_rate) / training.learning_rate,
        }
        for of, parameter in trained(model)
    ]
    make = getattr(torch.optim, OPTIMIZERS[name])
    made: torch.optim.Optimizer = make(groups, lr=training.learning_rate, weight_decay=training.weight_decay)
    return made


def fit(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, training: Training, setup: Setup
) -> Fit:
    """Train ``model`` (logits (N, exits, classes)) and keep the weights of the best validation loss.

    Each epoch's random numbers, torch's too (dropout), are seeded with (seed, epoch), and the learning rate is a
    function of the step, so that a training resumed from its checkpoint equals an uninterrupted one to the bit.
    ``optimizer`` is one from ``optimizer_of``. Raises ``Diverged``.
    """
    epochs: list[Epoch] = []
    best: Arrays = {}
    saved = setup.checkpoint.load() if setup.checkpoint is not None else None
    if saved is not None:
        epochs, best = restore(model, optimizer, batches.steps, saved)
    while len(epochs) < training.epochs and not _exhausted(epochs, training.patience):
        number = len(epochs) + 1
        train_loss, guessing, rate = _train_epoch(model, optimizer, batches, training, [setup.seed, number])
        validation_loss, accuracy = _validate(model, batches)
        epochs.append(Epoch(number, train_loss, validation_loss, accuracy, rate))
        # before saving: no checkpoint holds an epoch that diverged
        _refuse_divergence(epochs[-1], guessing)
        if _best(epochs) == number:
            best = to_arrays(model)
        if setup.checkpoint is not None:
            setup.checkpoint.save(*snapshot(model, optimizer, best, epochs))
    return Fit(best, tuple(epochs), _best(epochs))


def _train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, training: Training, seed: list[int]
) -> tuple[float, float, float]:
    """Every example once: the mean loss, what guessing would have lost, and the last learning rate.

    ``seed``: the training's, and the number of the epoch from 1.
    """
    rng, done = np.random.default_rng(seed), seed[-1] - 1
    device, steps = next(model.parameters()).device, batches.steps
    # a sum on the device: reading each step's loss would wait for the GPU
    loss_sum, guessing, rate = torch.zeros((), dtype=torch.float64, device=device), 0.0, 0.0
    # dropout draws from torch's global streams: seeded here, then left as they were
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(int(rng.integers(2**63)))
        model.train()
        # steps count through all epochs, as the schedule does
        for step, (inputs, labels) in enumerate(batches.epoch(rng), start=done * steps):
            rate = training.learning_rate * SCHEDULES[training.schedule](
                step / (training.epochs * steps), done
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.zero_grad()
            logits = model(_on(device, inputs))  # (B, exits, classes)
            loss = exit_losses(logits, labels.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach()
            # of two classes at least: ln 1 = 0 would make any loss a divergence
            guessing = logits.shape[1] * math.log(max(logits.shape[2], 2))
    return loss_sum.item() / steps, guessing, rate


def _validate(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Mean loss and the last exit's accuracy over the validation examples."""
    model.eval()
    device = next(model.parameters()).device
    loss, right, count = 0.0, 0, 0
    with torch.inference_mode():
        for inputs, cpu_labels in batches.validation():
            logits, labels = model(_on(device, inputs)), cpu_labels.to(device)  # (B, exits, classes), (B,)
            loss += exit_losses(logits, labels).item() * len(labels)  # a batch's mean back to its sum
            right += int((logits[:, -1].argmax(dim=1) == labels).sum())
            count += len(labels)
    return loss / count, right / count


def _on(device: torch.device, inputs: Inputs) -> Inputs:
    return inputs.to(device) if isinstance(inputs, Tensor) else [x.to(device) for x in inputs]


def _refuse_divergence(epoch: Epoch, guessing: float) -> None:
    # a NaN is neither larger nor smaller than a number, so the flag makes what is not finite the worst
    worst = max((epoch.train_loss, epoch.validation_loss), key=lambda loss: (not math.isfinite(loss), loss))
    if not worst <= DIVERGED_FACTOR * guessing:
        raise Diverged(
            f"diverged in epoch {epoch.epoch}: the loss is {worst:.3g}, guessing has {guessing:.3g}. "
            "Lower the learning rate."
        )


def _best(epochs: Sequence[Epoch]) -> int:
    """Number of the first epoch with the lowest validation loss."""
    return min(epochs, key=lambda epoch: epoch.validation_loss).epoch


def _exhausted(epochs: Sequence[Epoch], patience: int) -> bool:
    # the released counter must exceed its patience, which takes one epoch more (docs/paper.md §6)
    return bool(epochs) and len(epochs) - _best(epochs) >= patience


class BackboneWithHeads(nn.Module):
    """Backbone and heads trained together: normalised images to logits (N, 4, classes)."""

    def __init__(self, backbone: Backbone, heads: Heads) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.backbone(x))
        return logits

    def on(self, device: str) -> BackboneWithHeads:
        """Itself, moved to ``device``, in the layout of ``normalise``'s batches: convolutions need not transpose."""
        moved: BackboneWithHeads = self.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved


def image_batches(data: TrainingData, view: View | None, training: Training, setup: Setup) -> Batches:
    """Batches of uint8 images (N, H, W, 3), each changed by ``view`` and normalised."""
    return Batches(
        data,
        training.batch_size,
        VALIDATION_BATCH,
        to_inputs=lambda rows: normalise(*rows),  # one array: the images (B, H, W, 3)
        view=view,
        order_seed=setup.order_seed,
    )


@dataclass(frozen=True)
class Start:
    """The backbone that a training starts with."""

    architecture: Architecture
    weights: Arrays | None
    """For example ImageNet's; None for random ones."""


def train_backbone(
    start: Start, data: TrainingData, training: BackboneTraining, setup: Setup, *, augmented: bool = True
) -> Fit:
    """Train the backbone, all layers, with heads of its own that are then dropped (docs/paper.md §6).

    ``data``: uint8 images (N, H, W, 3). ``augmented``: training images go through ``images.augment``. The fit's
    weights are ``features.*``.
    """
    set_deterministic(setup.threads)
    # weights are made on the CPU, so its stream alone is seeded and then left as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        given, architecture = start.weights, start.architecture
        backbone = Backbone(architecture) if given is None else load_weights(given, architecture)
        model = BackboneWithHeads(backbone, Heads(backbone.pooled_sizes, data.classes))
    model = model.on(setup.device)
    batches = image_batches(data, augment if augmented else None, training, setup)
    peak = training.head_learning_rate or training.learning_rate
    optimizer = optimizer_of(model, training, training.optimizer, {"heads": peak})
    done = fit(model, optimizer, batches, training, setup)
    return Fit(done.weights_of("backbone"), done.epochs, done.best_epoch)


def train_heads(start: Arrays | None, data: TrainingData, training: Training, setup: Setup) -> Fit:
    """Train one expert's heads on cached vectors (four float32 arrays (N, D_k)) (docs/paper.md §6).

    ``start``: the heads to start from (the pristine expert's), or None for fresh ones. The fit's weights
    are ``exits.0.weight`` … ``exits.3.bias``.
    """
    set_deterministic(setup.threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        sizes = [vectors.shape[1] for vectors in data.train.arrays]
        heads = Heads(sizes, data.classes) if start is None else load_heads(start)
    heads = heads.to(setup.device)

    batches = Batches(
        data,
        training.batch_size,
        validation_size=max(1, len(data.validation)),  # small enough to be validated in one go
        to_inputs=lambda rows: [torch.tensor(vectors) for vectors in rows],  # (B, D_k) each
        order_seed=setup.order_seed,
    )
    return fit(heads, optimizer_of(heads, training), batches, training, setup)
