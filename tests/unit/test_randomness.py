import itertools

import numpy as np
import pytest

from early_exit.randomness import generator

KEY = {"seed": 7, "stage": "distort", "image": 3, "kind": "gaussian_noise", "level": 20, "view": 1}


def test_equal_arguments_give_equal_streams():
    assert generator(**KEY).random(4).tolist() == generator(**KEY).random(4).tolist()


def test_a_change_of_any_argument_gives_another_stream():
    changes = [
        {},
        {"seed": 8},
        {"stage": "features"},
        {"image": 4},
        {"kind": "pristine"},
        {"level": 30},
        {"view": 0},
    ]
    draws = [generator(**{**KEY, **change}).random() for change in changes]
    assert all(one != other for one, other in itertools.combinations(draws, 2))


def test_the_codes_of_stages_and_kinds_are_fixed():
    assert generator(**KEY).random() == np.random.default_rng([7, 1, 3, 2, 20, 1]).random()


@pytest.mark.parametrize("wrong", [{"stage": "sweep"}, {"kind": "motion_blur"}])
def test_an_unknown_stage_or_kind_is_refused(wrong):
    with pytest.raises(ValueError, match="unknown"):
        generator(**{**KEY, **wrong})
