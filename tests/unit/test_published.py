"""The published figures: quotients of whole images, and what the paper says of them (docs/paper.md §9 and §10)."""

import pytest

from db.results.published import FIGURES

IMAGES = 3056
"""The authors' test images."""
LEVELS = {"pristine": {0}, "gaussian_blur": {1, 2, 3, 4, 5}, "gaussian_noise": {5, 10, 20, 30, 40}}


def percent(count, of):
    return round(100 * count / of, 2)


def count_of(share, of):
    """How many images a percentage with two decimals stands for."""
    count = round(share * of / 100)
    assert percent(count, of) == share
    return count


@pytest.mark.parametrize("figures", FIGURES, ids=str)
def test_every_published_figure_is_a_quotient_of_whole_images(figures):
    *_, overall, exits, edge = figures
    right, on_edge = count_of(overall, IMAGES), count_of(exits, IMAGES)
    assert count_of(edge, on_edge) <= min(right, on_edge)


def test_each_expert_is_published_on_pristine_images_and_its_own_distortion_only():
    expected = {
        (p_tar, policy, kind, level)
        for p_tar in (0.7, 0.8, 0.9)
        for policy in LEVELS
        for kind, levels in LEVELS.items()
        for level in levels
        if policy in ("pristine", kind) or kind == "pristine"
    } | {
        (0.8, "total_gaussian_blur", kind, level)
        for kind in ("pristine", "gaussian_blur")
        for level in LEVELS[kind]
    }
    assert {figures[:4] for figures in FIGURES} == expected
    assert len(FIGURES) == len(expected)


def test_the_published_experts_keep_their_promise_on_the_edge_but_once():
    broken = [
        figures[:4] for figures in FIGURES if figures[1] == figures[2] and figures[-1] < 100 * figures[0]
    ]
    assert broken == [(0.9, "gaussian_blur", "gaussian_blur", 5)]


def test_the_published_pristine_model_keeps_it_on_pristine_images_only():
    kept = {
        figures[:4] for figures in FIGURES if figures[1] == "pristine" and figures[-1] >= 100 * figures[0]
    }
    assert kept == {(p_tar, "pristine", "pristine", 0) for p_tar in (0.7, 0.8, 0.9)} | {
        (0.7, "pristine", "gaussian_blur", 1)
    }
