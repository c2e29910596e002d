import math

import numpy as np
import pytest

from early_exit.calibration import fit_temperatures


def test_temperatures_make_confidence_equal_accuracy():
    """Two classes, ci95 m, three of four right: sigmoid(m / T) = 3/4, so T = m / ln 3."""
    intervals = (1.0, 2.0, 4.0, 0.5)
    logits = np.array([[[ci95, 0.0] for ci95 in intervals]] * 4, np.float32)
    labels = np.array([0, 0, 0, 1])
    expected = [ci95 / math.log(3) for ci95 in intervals]
    assert fit_temperatures(logits, labels) == pytest.approx(expected, rel=1e-5)


def test_all_right_and_all_wrong_stay_within_the_limits():
    logits = np.array([[[2.0, 0.0]] * 4] * 5, np.float32)
    assert fit_temperatures(logits, np.zeros(5, np.int64)).tolist() == [0.25] * 4
    assert fit_temperatures(logits, np.ones(5, np.int64)).tolist() == [10.0] * 4


def test_the_order_of_the_images_does_not_matter_beyond_rounding():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4, 7)).astype(np.float32) * 3, rng.integers(0, 7, 50)
    order = rng.permutation(50)
    assert fit_temperatures(logits, labels) == pytest.approx(
        fit_temperatures(logits[order], labels[order]), rel=1e-6
    )


def test_logits_that_are_not_finite_or_missing_are_refused():
    with pytest.raises(ValueError, match="finite logits"):
        fit_temperatures(np.full((1, 4, 2), np.nan), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="at least one validation image"):
        fit_temperatures(np.zeros((0, 4, 2)), np.zeros(0, np.int64))
