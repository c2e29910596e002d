"""What a training keeps after every epoch, so that it resumes after a kill and ends with the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from early_exit.network import to_arrays, to_tensors

Arrays = dict[str, np.ndarray]

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's running means of the gradient and of its square, one of each per parameter, in the parameter's shape."""


@dataclass(frozen=True)
class Epoch:
    """One row of a training's history; epochs count from 1. The rate is that of the epoch's last step."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float  # of the last exit, in [0, 1]
    learning_rate: float


class Checkpoint(Protocol):
    """Where a training keeps what it needs to resume after a kill; ``save`` replaces it atomically."""

    def load(self) -> tuple[Arrays, dict[str, str]] | None: ...
    def save(self, tensors: Arrays, metadata: dict[str, str]) -> None: ...


def trained(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def snapshot(
    model: nn.Module, optimizer: torch.optim.Optimizer, best: Arrays, epochs: Sequence[Epoch]
) -> tuple[Arrays, dict[str, str]]:
    """Everything that the next epoch starts from, as flat arrays and one JSON text."""
    # the whole state dict: BatchNorm's statistics move also where its parameters are frozen
    arrays = {f"model.{name}": array for name, array in to_arrays(model).items()}
    arrays |= {f"best.{name}": array for name, array in best.items()}
    for name, parameter in trained(model):
        for moment in MOMENTS:
            # a copy: on a CPU the array shares its memory with Adam, which updates it in place
            arrays[f"{moment}.{name}"] = optimizer.state[parameter][moment].cpu().numpy().copy()
    # JSON writes the shortest digits that read back as the same float: no loss changes
    return arrays, {"epochs": json.dumps([asdict(epoch) for epoch in epochs])}


def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, saved: tuple[Arrays, dict[str, str]]
) -> tuple[list[Epoch], Arrays]:
    """Return model and optimizer to the state of a ``snapshot``; gives the epochs and best weights until then.

    ``steps``: batches of one epoch.
    """
    arrays, metadata = saved
    parts: dict[str, Arrays] = {part: {} for part in ("model", "best", *MOMENTS)}
    for key, array in arrays.items():
        part, name = key.split(".", 1)  # at the first dot: parameter names have more of them
        parts[part][name] = array
    epochs = [Epoch(**epoch) for epoch in json.loads(metadata["epochs"])]
    # copies into the parameters that the optimizer already holds, rather than replacing them
    model.load_state_dict(to_tensors(parts["model"]))
    for name, parameter in trained(model):
        moments = {part: torch.tensor(parts[part][name]).to(parameter.device) for part in MOMENTS}
        # Adam's bias correction depends on the number of steps, which it counts on the CPU
        optimizer.state[parameter] = {"step": torch.tensor(float(len(epochs) * steps)), **moments}
    return epochs, parts["best"]
