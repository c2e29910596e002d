"""Temperature scaling: one scalar per exit makes confidence mean accuracy (docs/paper.md §7)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from early_exit.determinism import set_deterministic

START = 1.5  # where the authors' later code starts, too (docs/paper.md §7)
LIMITS = (0.25, 10.0)
"""Where every validation image is answered right, the likelihood alone would ask for temperature 0."""


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Temperatures float64 (4,) that minimise the negative log-likelihood of softmax(logits / T).

    ``logits`` (N, 4, C) of all validation images at every exit, ``labels`` int64 (N,). LBFGS from 1.5 on
    the logarithm of T, within ``LIMITS``, gradients zeroed in the closure. Raises ``ValueError`` without
    images or when a logit is not finite.
    """
    if len(labels) == 0 or not np.isfinite(logits).all():
        raise ValueError("temperatures need at least one validation image and finite logits")
    # one thread: the sum over N images is then the same on every machine
    set_deterministic(threads=1)
    targets = torch.tensor(labels)  # (N,)
    # float64: float32 could not resolve the tolerances of 1e-12 below
    exits = torch.tensor(logits, dtype=torch.float64).unbind(dim=1)  # 4 × (N, C)
    return np.array([_fit_temperature(exit_, targets) for exit_ in exits])  # (4,)


def _fit_temperature(logits: Tensor, labels: Tensor) -> float:
    # fitted as a logarithm, which may be any number: a temperature has to stay above 0
    log_temperature = torch.tensor(math.log(START), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_temperature],
        max_iter=50,  # as the authors' later code (docs/paper.md §7)
        tolerance_grad=1e-12,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",  # plain LBFGS steps may overshoot and end worse than they began
    )

    def closure() -> Tensor:
        optimizer.zero_grad()  # LBFGS calls this several times per step: gradients would add up
        loss = F.cross_entropy(logits / log_temperature.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # all 50 iterations
    # cut off after the fit, as LBFGS knows no bounds
    low, high = LIMITS
    return min(max(math.exp(log_temperature.item()), low), high)
