"""How often a batch of images misses its target: inference outage and missed deadline (docs/paper.md §14).

A deployed system is judged on the images of a short period, not on all of them. So the test images are shuffled
and cut into batches; the result is the probability that a batch fails, averaged over the shuffles. Defined as
in the same authors' follow-up studies on calibration and on distortion-robust early exits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from early_exit.uncertainty import mean_and_ci95

THRESHOLDS = tuple(i / 100 for i in range(50, 100, 2))
"""p_tar that outages are computed at: 0.50, 0.52 … 0.98."""

DEADLINES = tuple(milliseconds / 1000 for milliseconds in range(0, 2501, 50))
"""t_tar in seconds that missed deadlines are computed at: 0, 0.05 … 2.5."""

BATCH_SIZE = 256  # this and the shuffles are the follow-up studies' (docs/paper.md §14)
SHUFFLES = 100


@dataclass(frozen=True)
class Estimate:
    """A probability, and half the width of its 95 % interval over the shuffles."""

    mean: float
    ci95: float


@dataclass(frozen=True)
class Outage:
    """How often batches miss a threshold; probabilities in [0, 1]."""

    edge: Estimate
    """A batch's images that leave on the edge are right less often than p_tar; a batch of which none leaves there
    does not count as an outage, see ``without_edge``."""
    overall: Estimate
    """All images of a batch are right less often than p_tar."""
    without_edge: float
    """Share of batches of which no image leaves on the edge."""


def batch_size(images: int) -> int:
    """256 images, or a quarter of all if that is less: a single batch would be the same in every shuffle.

    At least one image. Raises ValueError if there are none.
    """
    if images < 1:
        raise ValueError("outages need at least one test image")
    return min(BATCH_SIZE, max(1, images // 4))


def shuffled_batches(images: int, rng: np.random.Generator, shuffles: int = SHUFFLES) -> NDArray[np.int64]:
    """Positions of images, int64 (shuffles, batches, batch size).

    Each shuffle permutes all N = ``images`` and drops those that do not fill a batch of ``batch_size(N)``.
    """
    size = batch_size(images)
    batches = images // size
    # (batches, batch size) each
    orders = [rng.permutation(images)[: batches * size].reshape(batches, size) for _ in range(shuffles)]
    return np.stack(orders)


def outage(
    right: NDArray[np.bool_], on_edge: NDArray[np.bool_], p_tar: float, batches: NDArray[np.int64]
) -> Outage:
    """How often the accuracy of a batch is strictly below ``p_tar``.

    ``right`` and ``on_edge`` (N,) say of each image whether its answer is right and whether it was given on the
    edge, both at ``p_tar``; ``batches`` is from ``shuffled_batches``.
    """
    left = on_edge[batches].sum(axis=2)  # (shuffles, batches)
    right_there = (right & on_edge)[batches].sum(axis=2)  # (shuffles, batches)
    edge_accuracy = right_there / np.maximum(left, 1)  # 0 where none left, not counted below
    return Outage(
        edge=_over_shuffles((left > 0) & (edge_accuracy < p_tar)),
        overall=_over_shuffles(right[batches].mean(axis=2) < p_tar),
        without_edge=float((left == 0).mean()),
    )


def missed_deadline(
    right: NDArray[np.bool_],
    seconds: NDArray[np.float64],
    p_tar: float,
    t_tars: Sequence[float],
    batches: NDArray[np.int64],
) -> list[Estimate]:
    """For each target time, in seconds: how often a batch is less accurate than ``p_tar`` or slower on average.

    ``right`` and ``seconds`` (N,) say whether each image is answered correctly, and how long it took.
    """
    wrong = right[batches].mean(axis=2) < p_tar  # (shuffles, batches)
    taken = seconds[batches].mean(axis=2)  # (shuffles, batches)
    return [_over_shuffles(wrong | (taken > t_tar)) for t_tar in t_tars]


def _over_shuffles(missed: NDArray[np.bool_]) -> Estimate:
    """``missed`` is (shuffles, batches), with at least two shuffles."""
    mean, ci95 = mean_and_ci95(missed.mean(axis=1).tolist())  # of (shuffles,): one share of batches each
    if ci95 is None:
        raise ValueError("an interval needs at least two shuffles")
    return Estimate(mean, ci95)
