"""One resumable training loop, and the two trainings of the early-exit network (docs/paper.md §6)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from early_exit.determinism import set_deterministic
from early_exit.errors import Diverged
from early_exit.features import normalise
from early_exit.images import augment
from early_exit.network import Architecture, Backbone, Heads, load_heads, load_weights, to_arrays, to_tensors

Batch = tuple[Tensor | Sequence[Tensor], Tensor]
"""What a model takes, and the labels (N,)."""

Arrays = dict[str, np.ndarray]

VALIDATION_BATCH = 64
DIVERGED_FACTOR = 100.0
"""A mean loss this many times that of guessing (exits × ln classes) will not come back."""


@dataclass(frozen=True)
class Settings:
    """How one training runs: ``learning_rate`` is the peak of ``schedule``, one of ``SCHEDULES``."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    patience: int  # stop after this many epochs without a better validation loss


@dataclass(frozen=True)
class Epoch:
    """One row of a training's history; epochs count from 1. The rate is that of the epoch's last step."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float  # of the last exit, in [0, 1]
    learning_rate: float


@dataclass(frozen=True)
class Fit:
    """A finished training: the weights of the epoch with the lowest validation loss, and every epoch."""

    weights: Arrays
    epochs: tuple[Epoch, ...]
    best_epoch: int


class Checkpoint(Protocol):
    """Where a training keeps what it needs to go on after a kill, to the bit. ``save`` replaces at once."""

    def load(self) -> tuple[Arrays, dict[str, str]] | None: ...
    def save(self, tensors: Arrays, metadata: dict[str, str]) -> None: ...


def one_cycle(progress: float) -> float:
    """Factor on the peak rate: cosine from 1/25 up to 1 at 30 %, then down to 4e-6 (torch's OneCycleLR)."""
    if progress < 0.3:
        return _cosine(1 / 25, 1.0, progress / 0.3)
    return _cosine(1.0, 4e-6, (progress - 0.3) / 0.7)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


ANNEALED_EPOCHS = 10
"""T_max of ``cosine_annealing``, as released: zero after 10 epochs, the peak again after 20 (docs/paper.md §6)."""

SCHEDULES: dict[str, Callable[[float, int], float]] = {
    "one_cycle": lambda progress, done: one_cycle(progress),
    "cosine": lambda progress, done: _cosine(1.0, 0.0, progress),
    "cosine_annealing": lambda progress, done: _cosine(1.0, 0.0, done / ANNEALED_EPOCHS),
    "constant": lambda progress, done: 1.0,
}
"""Factor on the peak learning rate, of the training's progress in [0, 1) and its finished epochs: no state to save."""

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""Weight decay is an L2 term of the loss in Adam (the paper's), and apart from it in AdamW."""


def batches_of(count: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """All indices below ``count``, shuffled by ``rng``, in batches that differ by one at most."""
    return np.array_split(rng.permutation(count), math.ceil(count / batch_size))


def exit_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Sum of the exits' cross-entropies, weight 1 each, of logits (N, exits, classes) (docs/paper.md §6)."""
    exits = outputs.shape[1]
    return F.cross_entropy(outputs.flatten(0, 1), labels.repeat_interleave(exits)) * exits


def fit(
    model: nn.Module,
    batches: Callable[[np.random.Generator], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]],
    steps: int,
    settings: Settings,
    seed: int,
    checkpoint: Checkpoint | None = None,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    rate_factors: Mapping[str, float] | None = None,
) -> Fit:
    """Train ``model`` (logits (N, exits, classes)) and keep the weights of the best validation loss.

    ``batches(rng)`` yields one epoch, ``steps`` of them; ``rng`` and torch's generators (dropout) start
    anew from (seed, epoch), and the learning rate is a function of the step, so that a training resumed
    from ``checkpoint`` equals an uninterrupted one to the bit. ``optimizer`` is one of ``OPTIMIZERS``;
    ``rate_factors`` scales the learning rate of parameters by the first part of their names. Raises ``Diverged``.
    """
    adam = _per_parameter(optimizer, model, settings, rate_factors or {})
    epochs, best = _restore(model, adam, steps, checkpoint)
    device = next(model.parameters()).device
    total = settings.epochs * steps
    while len(epochs) < settings.epochs and not _exhausted(epochs, settings.patience):
        number = len(epochs) + 1
        rng = np.random.default_rng([seed, number])
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
            torch.manual_seed(int(rng.integers(2**63)))
            model.train()
            train_loss, rate = torch.zeros((), dtype=torch.float64, device=device), 0.0
            for step, (inputs, labels) in enumerate(batches(rng), start=(number - 1) * steps):
                rate = settings.learning_rate * SCHEDULES[settings.schedule](step / total, number - 1)
                for group in adam.param_groups:
                    group["lr"] = rate * group["factor"]
                adam.zero_grad()
                outputs = model(inputs)
                loss = exit_losses(outputs, labels)
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                train_loss += loss.detach()
        validation_loss, accuracy = _validate(model, validation())
        epoch = Epoch(number, train_loss.item() / steps, validation_loss, accuracy, rate)
        _refuse_divergence(epoch, exits=outputs.shape[1], classes=outputs.shape[2])
        epochs.append(epoch)
        if _best(epochs) == number:
            best = to_arrays(model)
        if checkpoint is not None:
            checkpoint.save(*_snapshot(model, adam, best, epochs))
    return Fit(best, tuple(epochs), _best(epochs))


def _refuse_divergence(epoch: Epoch, exits: int, classes: int) -> None:
    guessing = exits * math.log(max(classes, 2))
    worst = max((epoch.train_loss, epoch.validation_loss), key=lambda loss: (not math.isfinite(loss), loss))
    if not worst <= DIVERGED_FACTOR * guessing:
        raise Diverged(
            f"diverged in epoch {epoch.epoch}: the loss is {worst:.3g}, guessing has {guessing:.3g}. "
            "Lower the learning rate."
        )


def _per_parameter(
    optimizer: type[torch.optim.Optimizer], model: nn.Module, settings: Settings, factors: Mapping[str, float]
) -> torch.optim.Optimizer:
    groups = [
        {"params": [parameter], "factor": factors.get(name.split(".")[0], 1.0)}
        for name, parameter in trained(model)
    ]
    return optimizer(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)  # type: ignore[call-arg]


def trained(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _best(epochs: Sequence[Epoch]) -> int:
    """Number of the first epoch with the lowest validation loss."""
    return min(epochs, key=lambda epoch: epoch.validation_loss).epoch


def _exhausted(epochs: Sequence[Epoch], patience: int) -> bool:
    return bool(epochs) and len(epochs) - _best(epochs) >= patience


def _validate(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, float]:
    """Mean loss and the last exit's accuracy over the validation images."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    with torch.inference_mode():
        for inputs, labels in batches:
            logits = model(inputs)
            loss += exit_losses(logits, labels).item() * len(labels)
            right += int((logits[:, -1].argmax(dim=1) == labels).sum())
            count += len(labels)
    return loss / count, right / count


def _snapshot(
    model: nn.Module, optimizer: torch.optim.Optimizer, best: Arrays, epochs: Sequence[Epoch]
) -> tuple[Arrays, dict[str, str]]:
    """Everything that the next epoch starts from, as flat arrays and one JSON text."""
    arrays = {f"model.{name}": array for name, array in to_arrays(model).items()}
    arrays |= {f"best.{name}": array for name, array in best.items()}
    for name, parameter in trained(model):
        for moment in ("exp_avg", "exp_avg_sq"):
            arrays[f"{moment}.{name}"] = optimizer.state[parameter][moment].cpu().numpy().copy()
    return arrays, {"epochs": json.dumps([asdict(epoch) for epoch in epochs])}


def _restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, checkpoint: Checkpoint | None
) -> tuple[list[Epoch], Arrays]:
    """Put model and optimizer where the checkpoint left them; its epochs and best weights so far."""
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is None:
        return [], {}
    arrays, metadata = saved
    parts: dict[str, Arrays] = {"model": {}, "best": {}, "exp_avg": {}, "exp_avg_sq": {}}
    for key, array in arrays.items():
        part, name = key.split(".", 1)
        parts[part][name] = array
    epochs = [Epoch(**epoch) for epoch in json.loads(metadata["epochs"])]
    model.load_state_dict(to_tensors(parts["model"]))
    for name, parameter in trained(model):
        moments = {part: torch.tensor(parts[part][name]) for part in ("exp_avg", "exp_avg_sq")}
        moments = {part: moment.to(parameter.device) for part, moment in moments.items()}
        optimizer.state[parameter] = {"step": torch.tensor(float(len(epochs) * steps)), **moments}
    return epochs, parts["best"]


class BackboneWithHeads(nn.Module):
    """Backbone and heads trained together: normalised images to logits (N, 4, classes)."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = Heads(backbone.pooled_sizes, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.backbone(x))
        return logits


Examples = tuple[np.ndarray, np.ndarray]
"""uint8 images (N, H, W, 3) and their labels int64 (N,)."""


def train_backbone(
    train: Examples,
    validation: Examples,
    classes: int,
    architecture: Architecture,
    weights: Arrays | None,
    settings: Settings,
    seed: int,
    device: str = "cpu",
    threads: int = 2,
    checkpoint: Checkpoint | None = None,
    augmented: bool = True,
    head_learning_rate: float | None = None,
    optimizer: str = "adamw",
) -> Fit:
    """Train the backbone, all layers, with heads of its own that are then dropped (docs/paper.md §6).

    Starts from ``weights`` (ImageNet's) or from scratch. ``augmented``: training images go through
    ``images.augment``. ``head_learning_rate``: the heads' peak, where it is not the backbone's. ``optimizer``: one of
    ``OPTIMIZERS``. The fit's weights are ``features.*``.
    """
    set_deterministic(threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = Backbone(architecture) if weights is None else load_weights(weights, architecture)
        model = BackboneWithHeads(start, classes)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch(examples: Examples, index: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        images, labels = examples[0][index], torch.tensor(examples[1][index])
        if rng is not None:
            images = np.stack([augment(image, rng) for image in images])
        return normalise(images).to(device), labels.to(device)

    def batches(rng: np.random.Generator) -> Iterable[Batch]:
        order = batches_of(len(train[1]), settings.batch_size, rng)
        return (batch(train, index, rng if augmented else None) for index in order)

    def validate() -> Iterable[Batch]:
        order = np.arange(len(validation[1]))
        return (batch(validation, order[i : i + VALIDATION_BATCH]) for i in order[::VALIDATION_BATCH])

    steps = math.ceil(len(train[1]) / settings.batch_size)
    factors = {"heads": (head_learning_rate or settings.learning_rate) / settings.learning_rate}
    algorithm = OPTIMIZERS[optimizer]
    done = fit(model, batches, validate, steps, settings, seed, checkpoint, algorithm, factors)
    prefix = "backbone."
    kept = {name.removeprefix(prefix): a for name, a in done.weights.items() if name.startswith(prefix)}
    return Fit(kept, done.epochs, done.best_epoch)


def train_heads(
    vectors: Sequence[np.ndarray],
    labels: np.ndarray,
    validation_vectors: Sequence[np.ndarray],
    validation_labels: np.ndarray,
    classes: int,
    start: Arrays | None,
    settings: Settings,
    seed: int,
    threads: int = 1,
    checkpoint: Checkpoint | None = None,
    fixed_order: bool = False,
) -> Fit:
    """Train one expert's heads on cached vectors (four float32 arrays (N, D_k)), on the CPU (docs/paper.md §6).

    ``start``: the heads to start from (the pristine expert's), or None for fresh ones. The fit's weights
    are ``exits.0.weight`` … ``exits.3.bias``. ``fixed_order``: shuffled once for all epochs, as the released
    code's stored split is (docs/paper.md §2).
    """
    set_deterministic(threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads([v.shape[1] for v in vectors], classes) if start is None else load_heads(start)
    inputs, targets = [torch.tensor(v) for v in vectors], torch.tensor(labels)
    held_out = [torch.tensor(v) for v in validation_vectors], torch.tensor(validation_labels)

    def batches(rng: np.random.Generator) -> Iterable[Batch]:
        order = batches_of(
            len(labels), settings.batch_size, np.random.default_rng(seed) if fixed_order else rng
        )
        return (([x[index] for x in inputs], targets[index]) for index in map(torch.tensor, order))

    def validate() -> Iterable[Batch]:
        yield held_out

    steps = math.ceil(len(labels) / settings.batch_size)
    return fit(heads, batches, validate, steps, settings, seed, checkpoint)
