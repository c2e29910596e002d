"""Mean and 95 % confidence interval over seeds or shuffles."""

import math
import statistics
from collections.abc import Sequence

T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""The 97.5 % quantile of Student's t for 1 to 30 degrees of freedom; 1.96 beyond."""


def mean_and_ci95(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and half the width of its 95 % confidence interval, t·s/√n; None for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    degrees = len(values) - 1
    t = T_95[degrees - 1] if degrees <= len(T_95) else 1.96
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))
