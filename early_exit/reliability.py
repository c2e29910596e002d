"""How well confidence predicts accuracy: the reliability diagram and the expected calibration error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Guo et al., "On calibration of modern neural networks" (2017), the source of this module."""


@dataclass(frozen=True)
class Reliability:
    """N answers in B bins of equal width; NaN where a bin is empty."""

    #: int64 (B,): answers in each bin; sums to N
    count: NDArray[np.int64]
    #: float64 (B,): their mean confidence
    confidence: NDArray[np.float64]
    #: float64 (B,): the share of them that are right
    accuracy: NDArray[np.float64]
    ece: float
    """Σ count / N · |accuracy − confidence|, in [0, 1]."""


def reliability(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Put N answers into ``bins`` bins by confidence; bin i of 1…bins holds ((i − 1)/bins, i/bins].

    ``confidence`` float64 (N,) in [0, 1], where 0 falls into the first bin; ``correct`` (N,). Raises ValueError
    if there are no answers.
    """
    if len(confidence) == 0:
        raise ValueError("reliability needs at least one answer")
    edges = np.arange(bins + 1) / bins  # (B + 1,)
    # left, for bins closed above: a score on an edge belongs to the bin below it
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)  # (N,)
    count = np.bincount(bin_of, minlength=bins)  # (B,)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty bin
        mean_confidence = np.bincount(bin_of, confidence, bins) / count
        accuracy = np.bincount(bin_of, correct, bins) / count  # a bool weighs 1 where right
    gap = np.nan_to_num(np.abs(accuracy - mean_confidence))  # an empty bin adds nothing to the error
    return Reliability(count, mean_confidence, accuracy, float((count * gap).sum() / len(confidence)))
