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
    """Eight training and four validation pictures of two classes."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 2) for count in (8, 4)
    ]


@pytest.fixture(scope="module")
def start():
    backbone = Backbone(NARROW)
    return to_arrays(backbone), to_arrays(Heads(backbone.pooled_sizes, 2))


def adapted(start, examples, **options):
    weights, heads = start
    backbone = Backbone(NARROW)
    backbone.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    seen = []

    def view(picture, rng):
        seen.append(int(picture.sum()))
        return picture

    fit = adapt(Start(backbone, heads), *examples, view, SETTINGS, seed=1, threads=1, **options)
    return fit.weights, seen


def test_batchnorms_statistics_and_the_heads_move_and_nothing_else(start, examples):
    weights, _ = adapted(start, examples)
    moved = {n for n, a in start[0].items() if not np.array_equal(a, weights[BACKBONE + n])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {name for name in start[0] if name.endswith(statistics)}
    heads = {name.removeprefix(HEADS) for name in weights if name.startswith(HEADS)}
    assert heads == set(start[1])
    assert not np.array_equal(weights[HEADS + "exits.0.weight"], start[1]["exits.0.weight"])


def test_every_epoch_sees_every_picture_in_an_order_of_its_own_or_a_fixed_one(start, examples):
    sums = examples[0][0].sum(axis=(1, 2, 3)).tolist()
    _, shuffled = adapted(start, examples)
    assert sorted(shuffled[:8]) == sorted(shuffled[8:]) == sorted(sums)
    assert shuffled[:8] != shuffled[8:]
    _, fixed = adapted(start, examples, fixed_order=True)
    assert fixed == [*sums, *sums]
