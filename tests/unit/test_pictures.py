"""Several kinds of distortion mixed: whose turn it is."""

import numpy as np

from tasks.pictures import in_turn


def test_each_picture_is_taken_from_the_kind_whose_turn_it_is():
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
