"""The images that spectra and features are computed from, some of them distorted and augmented here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from db.artifacts import Tensors
from early_exit.batches import Examples
from early_exit.distortion import distort, version_of
from early_exit.images import augment
from early_exit.randomness import generator
from tasks.job_io import JobContext, Refused


@dataclass(frozen=True)
class View:
    """How images are changed: ``share`` of them at a level drawn from ``levels``, then augmented or not."""

    purpose: str
    """``spectra`` or ``features``: each has random numbers of its own."""
    kind: str
    kind_version: int
    levels: tuple[int, ...]
    share: float
    number: int
    augmented: bool
    seed: int


def load_images(context: JobContext) -> Tensors:
    """The arrays of the one job, ``prepare`` or ``distort``, that images come from."""
    return context.input("prepare", "distort").load()


def examples(context: JobContext, split: str) -> Examples:
    """All prepared images of a split, uint8 (N, H, W, 3)."""
    shards = [source.load() for source in context.inputs("prepare", split=split)]
    pixels = np.concatenate([shard["pixels"] for shard in shards])  # (N, H, W, 3)
    return Examples((pixels,), np.concatenate([shard["labels"] for shard in shards]))


def check_version(kind: str, planned: int) -> None:
    """Refuse to distort with a version of ``kind`` that the job's key does not name."""
    if version_of(kind) != planned:
        raise Refused(
            f"planned with version {planned} of {kind}, but version {version_of(kind)} is here: submit the run again"
        )


def changed(shard: Tensors, view: View) -> np.ndarray:
    """uint8 (N, H, W, 3): every image of ``shard``, changed as ``view`` says."""
    check_version(view.kind, view.kind_version)
    return np.stack(
        [
            _changed(image, int(index), view)
            for image, index in zip(shard["pixels"], shard["images"], strict=True)
        ]
    )


def in_turn(of_kinds: Sequence[np.ndarray], numbers: np.ndarray) -> np.ndarray:
    """Mix several kinds in equal shares: row i is that of the kind whose turn it is by ``numbers`` (N,).

    ``of_kinds``: the same N rows for each kind.
    """
    # (kinds, N, …) to (N, …)
    mixed: np.ndarray = np.stack(of_kinds)[numbers % len(of_kinds), np.arange(len(numbers))]
    return mixed


def _changed(image: np.ndarray, index: int, view: View) -> np.ndarray:
    # level 0, as the stream itself draws it; all that happens to a view comes from this stream
    rng = generator(view.seed, view.purpose, index, view.kind, 0, view.number)
    if rng.random() < view.share:
        image = distort(image, view.kind, int(rng.choice(view.levels)), rng)
    return augment(image, rng) if view.augmented else image
