"""How the learning rate moves through a training (docs/paper.md §6): functions without a state to save."""

import math
from collections.abc import Callable

ANNEALED_EPOCHS = 10
"""T_max of ``cosine_annealing``, as released: zero after 10 epochs, the peak again after 20 (docs/paper.md §6)."""


def one_cycle(progress: float) -> float:
    """Factor on the peak rate: cosine from 1/25 up to 1 at 30 %, then down to 4e-6 (torch's OneCycleLR)."""
    if progress < 0.3:
        return _cosine(1 / 25, 1.0, progress / 0.3)
    return _cosine(1.0, 4e-6, (progress - 0.3) / 0.7)  # 1/25 by another 10,000, torch's defaults


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[str, Callable[[float, int], float]] = {
    "one_cycle": lambda progress, done: one_cycle(progress),
    "cosine": lambda progress, done: _cosine(1.0, 0.0, progress),
    # no restart: past T_max the cosine climbs again, as torch's does
    "cosine_annealing": lambda progress, done: _cosine(1.0, 0.0, done / ANNEALED_EPOCHS),
    "constant": lambda progress, done: 1.0,
}
"""Factor on the peak learning rate, of the training's progress in [0, 1) and its finished epochs."""
