"""Reliability bins and the expected calibration error, against values worked out by hand."""

import numpy as np
import pytest

from early_exit.reliability import reliability


def test_bins_hold_their_mean_confidence_and_their_share_of_right_answers():
    confidence = np.array([0.55, 0.65, 0.75, 0.95, 0.85])
    correct = np.array([True, False, True, True, True])
    found = reliability(confidence, correct, bins=4)
    # (0.5, 0.75]: 0.55, 0.65 and 0.75 (its upper end), two right; (0.75, 1]: 0.95 and 0.85, both right
    assert found.count.tolist() == [0, 0, 3, 2]
    assert found.confidence[2:] == pytest.approx([0.65, 0.90])
    assert found.accuracy[2:] == pytest.approx([2 / 3, 1.0])
    assert np.isnan(found.confidence[:2]).all()
    assert np.isnan(found.accuracy[:2]).all()
    # 3/5 · |2/3 − 0.65| + 2/5 · |1 − 0.9| = 0.01 + 0.04
    assert found.ece == pytest.approx(0.05)


def test_both_ends_fall_into_a_bin():
    found = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert found.count.tolist() == [1, *[0] * 13, 1]
    assert found.ece == 0.0


def test_a_confidence_on_an_edge_counts_below_it():
    assert reliability(np.array([0.2]), np.array([True])).count.argmax() == 2  # (2/15, 3/15]


def test_always_sure_and_always_wrong_is_the_worst():
    assert reliability(np.ones(7), np.zeros(7, bool)).ece == 1.0


def test_no_answers_are_refused():
    with pytest.raises(ValueError, match="at least one answer"):
        reliability(np.array([]), np.array([], bool))
