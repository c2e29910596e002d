"""Images as a view has them, and several kinds of distortion mixed: whose turn it is."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.images import View, changed, in_turn
from tasks.job_io import Refused


def test_each_image_is_taken_from_the_kind_whose_turn_it_is():
    blur, noise = (
        np.array([[1, 1], [2, 2], [3, 3], [4, 4]]),
        np.array([[10, 10], [20, 20], [30, 30], [40, 40]]),
    )
    assert in_turn([blur, noise], np.array([6, 7, 9, 10])).tolist() == [[1, 1], [20, 20], [30, 30], [4, 4]]


def test_in_the_next_view_it_is_the_next_kinds_turn():
    kinds = [np.full(6, number) for number in range(3)]
    views = [in_turn(kinds, np.arange(6) + view).tolist() for view in range(3)]
    assert views == [[0, 1, 2, 0, 1, 2], [1, 2, 0, 1, 2, 0], [2, 0, 1, 2, 0, 1]]


def test_one_kind_has_every_turn():
    only = np.arange(8).reshape(4, 2)
    assert in_turn([only], np.array([3, 4, 5, 6])).tolist() == only.tolist()


def test_images_are_distorted_by_the_version_that_was_planned_or_not_at_all():
    images = {"pixels": np.full((2, 8, 8, 3), 200, np.uint8), "images": np.arange(2)}
    view = View("features", "motion_blur", 1, (5,), share=1.0, number=0, augmented=False, seed=0)
    # of the first pixel's five neighbours two lie outside
    assert changed(images, view)[:, 0, 0, 0].tolist() == [120, 120]
    with pytest.raises(Refused, match="planned with version 2 of motion_blur, but version 1 is here: submit"):
        changed(images, replace(view, kind_version=2))
