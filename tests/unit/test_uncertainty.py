"""Mean and interval over seeds, against values worked out by hand."""

import pytest

from early_exit.uncertainty import mean_and_ci95


def test_one_value_has_no_interval():
    assert mean_and_ci95([0.5]) == (0.5, None)


def test_the_margin_of_three_values_is_students():
    # mean 2, standard deviation 1, t(2) = 4.303: 4.303 / √3
    assert mean_and_ci95([1.0, 2.0, 3.0]) == (2.0, pytest.approx(2.4843, abs=1e-4))


def test_equal_values_have_no_margin():
    assert mean_and_ci95([0.25] * 4) == (0.25, 0.0)


def test_many_values_use_the_normal_quantile():
    values = [0.0, 1.0] * 50
    # standard deviation √(25/99), 100 values
    assert mean_and_ci95(values) == (0.5, pytest.approx(1.96 * (25 / 99) ** 0.5 / 10))
