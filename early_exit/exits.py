"""Where an image leaves the network, and the counts that all metrics are computed from (docs/paper.md §8 and §9)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from early_exit.vocabulary import EXITS

# i / 100 is the very float that a spec's 0.07 reads as; steps of 0.01 added up would not be
THRESHOLDS = tuple(i / 100 for i in range(101))
"""The 101 values of p_tar that a sweep counts at."""


@dataclass(frozen=True)
class SweepCounts:
    """Integer counts over N images at T thresholds, one column per exit; int64."""

    #: (T, 4): images that leave at exit 1…4; each row sums to N
    n: NDArray[np.int64]
    #: (T, 4): those of them answered correctly
    c: NDArray[np.int64]
    #: (T, 3): images whose confidence at branch 1…3 is at least p_tar, whether or not they left earlier
    r: NDArray[np.int64]


def softmax_confidence(
    logits: NDArray[np.floating], temperatures: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Confidence and predicted class at every exit: the largest of softmax(logits / T), and its index.

    ``logits`` is (N, 4, C), ``temperatures`` (4,), one positive scalar per exit. Both results are (N, 4),
    the confidence in float64, in which it is compared with thresholds; ties give the lowest class.
    """
    scaled = logits.astype(np.float64) / temperatures[:, np.newaxis]  # (N, 4, C) by (4, 1)
    predicted = scaled.argmax(axis=2)  # (N, 4)
    scaled -= scaled.max(axis=2, keepdims=True)  # so that no exp overflows
    # The largest class now contributes exp(0) = 1.
    return 1.0 / np.exp(scaled).sum(axis=2), predicted


def decide(
    confidence: NDArray[np.float64],
    predicted: NDArray[np.int64],
    p_tar: float,
    exits: Sequence[int] = EXITS,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The exit (1…4) at which each image leaves, and the class it is answered with: both (N,).

    ``confidence`` and ``predicted`` are (N, 4). An image leaves at the first of ``exits`` whose confidence
    strictly exceeds ``p_tar``. All others leave at the last, which answers if its confidence is at least
    ``p_tar``; otherwise the most confident of ``exits`` answers, the earliest if tied (docs/paper.md §8). ``exits``
    are ascending, all four in the paper; see ``Policy.exits``.
    """
    present, last = np.isin(EXITS, exits), exits[-1] - 1  # (4,) of bool; an index from 0
    masked = np.where(present, confidence, -np.inf)  # (N, 4)
    leaves = masked > p_tar  # (N, 4); strictly, as released (docs/paper.md §8)
    leaves[:, last] = True  # whoever is still there
    # the first True of each row
    exit_index = leaves.argmax(axis=1)  # (N,)
    # (N,); the last exit may answer with p_tar itself
    undecided = (exit_index == last) & (masked[:, last] < p_tar)
    answering = np.where(undecided, masked.argmax(axis=1), exit_index)  # (N,)
    answer = np.take_along_axis(predicted, answering[:, np.newaxis], axis=1)[:, 0]  # (N,)
    return exit_index + 1, answer


def sweep(
    confidence: NDArray[np.float64],
    predicted: NDArray[np.int64],
    label: NDArray[np.int64],
    thresholds: Sequence[float] = THRESHOLDS,
    exits: Sequence[int] = EXITS,
) -> SweepCounts:
    """Count at each threshold how many images leave at each exit, and how many of those are answered correctly.

    ``confidence`` and ``predicted`` are (N, 4), ``label`` is (N,), ``exits`` as in ``decide``; an exit not
    among them counts no images. The published rates are quotients of these counts: released columns with "repo"
    in their names of ``r``, all others of ``n`` and ``c`` (docs/paper.md §9).
    """
    n = np.zeros((len(thresholds), 4), np.int64)
    c = np.zeros((len(thresholds), 4), np.int64)
    r = np.zeros((len(thresholds), 3), np.int64)
    branches = np.isin(EXITS[:3], exits)  # (3,) of bool
    for row, p_tar in enumerate(thresholds):
        left, answer = decide(confidence, predicted, p_tar, exits)
        n[row] = np.bincount(left, minlength=5)[1:]  # exits count from 1: nothing is in column 0
        c[row] = np.bincount(left[answer == label], minlength=5)[1:]
        r[row] = branches * (confidence[:, :3] >= p_tar).sum(axis=0)  # (3,)
    return SweepCounts(n, c, r)
