import hashlib
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


def test_clipped_noise_is_drawn_as_the_noise_that_wraps_around():
    clipped = generator(**{**KEY, "kind": "gaussian_noise_clipped"})
    assert clipped.random() == generator(**KEY).random()


def test_other_kinds_go_by_their_names():
    code = int(hashlib.sha256(b"motion_blur").hexdigest()[:16], 16)
    drawn = generator(**{**KEY, "kind": "motion_blur"}).random()
    assert drawn == np.random.default_rng([7, 1, 3, code, 20, 1]).random()


@pytest.mark.parametrize("wrong", [{"stage": "sweep"}, {"kind": "fog"}])
def test_an_unknown_stage_or_kind_is_refused(wrong):
    with pytest.raises(ValueError, match="unknown"):
        generator(**{**KEY, **wrong})
