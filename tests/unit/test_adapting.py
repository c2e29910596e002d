"""Experts with an adapting BatchNorm: which numbers move and which stay."""

import numpy as np
import pytest
import torch

from early_exit.adapting import Adapting, adapt
from early_exit.batches import Examples, TrainingData
from early_exit.network import Backbone, Heads, to_arrays
from early_exit.settings import Architecture, Training
from early_exit.training import Setup

NARROW = Architecture(width=0.1, stem_stride=2)
TRAINING = Training(2, 4, 0.01, weight_decay=0.0, schedule="constant", patience=5)


@pytest.fixture(scope="module")
def examples():
    """Eight training and four validation images of two classes."""
    rng = np.random.default_rng(0)
    train, validation = (
        Examples((rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),), np.arange(count) % 2)
        for count in (8, 4)
    )
    return TrainingData(train, validation, classes=2)


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(0)
    backbone = Backbone(NARROW)
    return to_arrays(backbone), to_arrays(Heads(backbone.pooled_sizes, 2))


def adapted(start, examples, training=TRAINING, backbone_learning_rate=0.0, fixed_order=False):
    weights, heads = start
    backbone = Backbone(NARROW)
    backbone.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    seen = []

    def view(image, rng):
        seen.append(int(image.sum()))
        return image

    start = Adapting(backbone, heads, backbone_learning_rate)
    return adapt(start, examples, view, training, Setup(1, fixed_order=fixed_order)), seen


def test_batchnorms_statistics_and_the_heads_move_and_nothing_else(start, examples):
    fit, _ = adapted(start, examples)
    weights = fit.weights_of("backbone")
    moved = {name for name, array in start[0].items() if not np.array_equal(array, weights[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {name for name in start[0] if name.endswith(statistics)}
    heads = fit.weights_of("heads")
    assert heads.keys() == start[1].keys()
    assert not np.array_equal(heads["exits.0.weight"], start[1]["exits.0.weight"])


def test_with_a_learning_rate_of_its_own_all_layers_of_the_backbone_move(start, examples):
    fit, _ = adapted(start, examples, backbone_learning_rate=1e-3)
    weights = fit.weights_of("backbone")
    assert not any(np.array_equal(array, weights[name]) for name, array in start[0].items())


def test_the_backbones_first_step_is_as_long_as_its_own_learning_rate(start, examples):
    """Adam's first step is the learning rate, whatever the gradient: one epoch of one batch is one step."""
    once = Training(1, 8, 0.01, weight_decay=0.0, schedule="constant", patience=5)
    fit, _ = adapted(start, examples, once, backbone_learning_rate=1e-3)
    for part, before, name, rate in (
        ("backbone", start[0], "features.18.0.weight", 1e-3),
        ("heads", start[1], "exits.3.weight", 1e-2),
    ):
        moved = np.abs(fit.weights_of(part)[name] - before[name])
        assert np.median(moved) == pytest.approx(rate, rel=0.01), name


def test_every_epoch_sees_every_image_in_an_order_of_its_own_or_a_fixed_one(start, examples):
    sums = examples.train.arrays[0].sum(axis=(1, 2, 3)).tolist()
    _, shuffled = adapted(start, examples)
    assert sorted(shuffled[:8]) == sorted(shuffled[8:]) == sorted(sums)
    assert shuffled[:8] != shuffled[8:]
    _, fixed = adapted(start, examples, fixed_order=True)
    assert fixed[:8] == fixed[8:] != sums  # not class by class, as images come
    assert sorted(fixed[:8]) == sorted(sums)
