"""The examples of a training, and the batches in which a network sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Inputs = Tensor | Sequence[Tensor]
"""What a model takes: one tensor of B rows, or the vectors of the four exits."""

View = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""An image, uint8 (H, W, 3), as one epoch sees it: distorted or not, augmented or not."""


@dataclass(frozen=True)
class Examples:
    """N examples: ``arrays`` of N rows each, one of images or spectra, four of vectors; ``labels`` int64 (N,)."""

    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Copies of the arrays' rows at ``index`` (B,)."""
        return tuple(array[index] for array in self.arrays)  # (B, …) each


@dataclass(frozen=True)
class TrainingData:
    """What a network learns from, and what chooses its best epoch."""

    train: Examples
    validation: Examples
    classes: int


@dataclass(frozen=True)
class Batches:
    """How a network sees its data: in which batches, and as which tensors."""

    data: TrainingData
    size: int
    validation_size: int
    to_inputs: Callable[[tuple[np.ndarray, ...]], Inputs]
    """Turns rows of the examples into what the model takes."""
    view: View | None = None
    """How each training image is changed; None for no change. Validation images are never changed."""
    order_seed: int | None = None
    """Seed of one shuffle for all epochs; None to shuffle again in every epoch."""

    @property
    def steps(self) -> int:
        """Batches of one epoch."""
        return math.ceil(len(self.data.train) / self.size)  # as many as ``batches_of`` cuts

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[Inputs, Tensor]]:
        """One epoch of training: inputs and labels int64 (B,) on the CPU; ``rng`` first draws the order."""
        train = self.data.train
        # a generator of its own: only the order repeats, ``rng`` still draws new views in every epoch
        order = rng if self.order_seed is None else np.random.default_rng(self.order_seed)
        for index in batches_of(len(train), self.size, order):
            rows = train.rows(index)
            if self.view is not None:
                # (B, H, W, 3)
                rows = tuple(np.stack([self.view(row, rng) for row in array]) for array in rows)
            yield self.to_inputs(rows), torch.tensor(train.labels[index])

    def validation(self) -> Iterator[tuple[Inputs, Tensor]]:
        """All validation examples in their own order."""
        held_out = self.data.validation
        for start in range(0, len(held_out), self.validation_size):
            # the last one may be shorter: in eval mode no image depends on its batch
            index = np.arange(start, min(start + self.validation_size, len(held_out)))
            yield self.to_inputs(held_out.rows(index)), torch.tensor(held_out.labels[index])


def batches_of(count: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """All indices below ``count``, shuffled by ``rng``, in batches that differ by one at most."""
    # no short last batch: BatchNorm could not normalise a single image, and its gradient would weigh more
    return np.array_split(rng.permutation(count), math.ceil(count / size))
