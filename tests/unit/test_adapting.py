"""Experts with an adapting BatchNorm: which numbers move and which stay."""

import numpy as np
import pytest
import torch

from early_exit.adapting import BACKBONE, HEADS, Start, adapt
from early_exit.network import Architecture, Backbone, Heads, to_arrays
from early_exit.training import Settings

NARROW = Architecture(width=0.1, stem_stride=2)
SETTINGS = Settings(2, 4, 0.01, weight_decay=0.0, schedule="constant", patience=5)


@pytest.fixture(scope="module")
def examples():
    """Eight training and four validation images of two classes."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 2) for count in (8, 4)
    ]


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(0)
    backbone = Backbone(NARROW)
    return to_arrays(backbone), to_arrays(Heads(backbone.pooled_sizes, 2))


def adapted(start, examples, settings=SETTINGS, **options):
    weights, heads = start
    backbone = Backbone(NARROW)
    backbone.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    seen = []

    def view(image, rng):
        seen.append(int(image.sum()))
        return image

    fit = adapt(Start(backbone, heads), *examples, view, settings, seed=1, threads=1, **options)
    return fit.weights, seen


def test_batchnorms_statistics_and_the_heads_move_and_nothing_else(start, examples):
    weights, _ = adapted(start, examples)
    moved = {n for n, a in start[0].items() if not np.array_equal(a, weights[BACKBONE + n])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {name for name in start[0] if name.endswith(statistics)}
    heads = {name.removeprefix(HEADS) for name in weights if name.startswith(HEADS)}
    assert heads == set(start[1])
    assert not np.array_equal(weights[HEADS + "exits.0.weight"], start[1]["exits.0.weight"])


def test_with_a_learning_rate_of_its_own_all_layers_of_the_backbone_move(start, examples):
    weights, _ = adapted(start, examples, backbone_learning_rate=1e-3)
    still = {n for n, a in start[0].items() if np.array_equal(a, weights[BACKBONE + n])}
    assert still == set()


def test_the_backbones_first_step_is_as_long_as_its_own_learning_rate(start, examples):
    """Adam's first step is the learning rate, whatever the gradient: one epoch of one batch is one step."""
    once = Settings(1, 8, 0.01, weight_decay=0.0, schedule="constant", patience=5)
    weights, _ = adapted(start, examples, settings=once, backbone_learning_rate=1e-3)
    for name, before, rate in (
        (BACKBONE + "features.18.0.weight", start[0]["features.18.0.weight"], 1e-3),
        (HEADS + "exits.3.weight", start[1]["exits.3.weight"], 1e-2),
    ):
        moved = np.abs(weights[name] - before)
        assert np.median(moved) == pytest.approx(rate, rel=0.01), name


def test_every_epoch_sees_every_picture_in_an_order_of_its_own_or_a_fixed_one(start, examples):
    sums = examples[0][0].sum(axis=(1, 2, 3)).tolist()
    _, shuffled = adapted(start, examples)
    assert sorted(shuffled[:8]) == sorted(shuffled[8:]) == sorted(sums)
    assert shuffled[:8] != shuffled[8:]
    _, fixed = adapted(start, examples, fixed_order=True)
    assert fixed[:8] == fixed[8:] != sums  # not class by class, as images come
    assert sorted(fixed[:8]) == sorted(sums)
