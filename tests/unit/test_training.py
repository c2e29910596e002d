import math

import numpy as np
import pytest
import torch
from torch import nn

from early_exit.batches import Batches, Examples, TrainingData, batches_of
from early_exit.errors import Diverged
from early_exit.network import Backbone, to_arrays
from early_exit.schedules import SCHEDULES
from early_exit.settings import Architecture, BackboneTraining, Training
from early_exit.training import Setup, Start, exit_losses, fit, optimizer_of, train_backbone, train_heads

HEADS = Training(
    epochs=4, batch_size=8, learning_rate=0.01, weight_decay=5e-4, schedule="cosine", patience=10
)


class Memory:
    """A checkpoint in memory that may stop the training after some epochs, as a kill does."""

    def __init__(self, stop_after=None):
        self.saved, self.saves, self.stop_after = None, 0, stop_after

    def load(self):
        return self.saved

    def save(self, tensors, metadata):
        self.saved = ({name: array.copy() for name, array in tensors.items()}, dict(metadata))
        self.saves += 1
        if self.saves == self.stop_after:
            raise KeyboardInterrupt


def vectors(count, seed):
    """Two classes that differ in the mean of every vector."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    exits = [(rng.normal(size=(count, d)) + 2 * labels[:, None]).astype(np.float32) for d in (3, 4, 5, 6)]
    return Examples(tuple(exits), labels)


def heads_fit(training=HEADS, seed=0, start=None, checkpoint=None):
    data = TrainingData(vectors(40, seed=1), vectors(20, seed=2), classes=2)
    return train_heads(start, data, training, Setup(seed, checkpoint=checkpoint))


def images(count):
    """Noise of two classes, to train on and to validate with."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    examples = Examples((pixels,), np.arange(count) % 2)
    return TrainingData(examples, examples, classes=2)


def assert_equal_fits(one, other):
    assert one.epochs == other.epochs
    assert one.best_epoch == other.best_epoch
    assert one.weights.keys() == other.weights.keys()
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def assert_resumes_to_the_bit(train):
    memory = Memory(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        train(memory)
    memory.stop_after = None
    assert_equal_fits(train(memory), train(None))
    assert memory.saves == 4


def test_resumed_heads_equal_uninterrupted_ones_to_the_bit():
    assert_resumes_to_the_bit(lambda checkpoint: heads_fit(checkpoint=checkpoint))


def test_a_resumed_backbone_equals_an_uninterrupted_one_to_the_bit():
    training = BackboneTraining(
        4, batch_size=4, learning_rate=1e-3, weight_decay=0.05, schedule="one_cycle", patience=10
    )

    def train(checkpoint):
        start = Start(Architecture(width=0.1, stem_stride=2), None)
        return train_backbone(start, images(10), training, Setup(0, checkpoint=checkpoint))

    assert_resumes_to_the_bit(train)
    assert list(train(None).weights) == list(Backbone(Architecture(0.1, 2)).state_dict())


def test_a_finished_training_is_not_trained_again():
    memory = Memory()
    done = heads_fit(checkpoint=memory)
    assert_equal_fits(heads_fit(checkpoint=memory), done)
    assert memory.saves == 4


def test_other_seeds_give_other_weights():
    one, other = heads_fit(seed=0).weights, heads_fit(seed=1).weights
    assert not np.array_equal(one["exits.0.weight"], other["exits.0.weight"])


def test_training_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    heads_fit()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_heads_keep_the_epoch_of_the_lowest_validation_loss():
    done = heads_fit(Training(30, 8, 0.01, 5e-4, "cosine", 30))
    losses = [epoch.validation_loss for epoch in done.epochs]
    assert done.best_epoch == 1 + int(np.argmin(losses))
    assert [epoch.epoch for epoch in done.epochs] == list(range(1, 31))


def test_one_step_from_nothing_tells_apart_what_differs_in_every_number():
    """Adam's first step moves every weight by the learning rate to its label's side, and a bias no further."""
    labels = np.arange(40) % 2
    exits = [np.repeat(2 * labels[:, None] - 1, d, axis=1).astype(np.float32) for d in (3, 4, 5, 6)]
    examples = Examples(tuple(exits), labels)
    nothing = {name: np.zeros_like(array) for name, array in heads_fit().weights.items()}
    once = Training(1, 40, 0.01, weight_decay=0, schedule="constant", patience=1)
    (epoch,) = train_heads(nothing, TrainingData(examples, examples, 2), once, Setup(0)).epochs
    assert epoch.validation_accuracy == 1
    assert epoch.validation_loss < epoch.train_loss == pytest.approx(4 * math.log(2))  # four exits guessed


def test_heads_start_from_the_given_ones():
    start = heads_fit().weights
    still = heads_fit(Training(1, 8, 1e-12, 0.0, "constant", 1), start=start).weights
    assert all(np.allclose(still[name], start[name], atol=1e-9) for name in start)


class Constant(nn.Module):
    """Logits that do not depend on the input; one parameter."""

    def __init__(self, value):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([value, 0.0]))

    def forward(self, x):
        return self.bias.expand(len(x), 1, 2)


def fit_constant(value, training, label):
    """Train on label 0, validate on ``label``."""
    train, validation = (Examples((np.zeros((4, 1)),), np.full(4, said)) for said in (0, label))
    batches = Batches(TrainingData(train, validation, 2), 4, 4, lambda rows: torch.tensor(rows[0]))
    model = Constant(value)
    return fit(model, optimizer_of(model, training), batches, training, Setup(0))


def test_training_stops_after_patience_epochs_without_a_better_validation_loss():
    training = Training(10, batch_size=4, learning_rate=0.1, weight_decay=0, schedule="constant", patience=3)
    worse = fit_constant(0.0, training, label=1)
    assert (len(worse.epochs), worse.best_epoch) == (4, 1)
    assert fit_constant(0.0, training, label=0).best_epoch == 10


def test_a_loss_that_is_not_finite_ends_the_training_with_its_epoch():
    training = Training(10, batch_size=4, learning_rate=0.1, weight_decay=0, schedule="constant", patience=3)
    with pytest.raises(Diverged, match=r"^diverged in epoch 1: the loss is nan, guessing has 0\.69"):
        fit_constant(math.inf, training, label=0)


def test_a_finite_loss_far_above_guessing_has_diverged():
    """One exit and two classes: guessing has ln 2, so that 69.3 is the limit."""
    training = Training(10, batch_size=4, learning_rate=0.1, weight_decay=0, schedule="constant", patience=3)
    with pytest.raises(Diverged, match=r"^diverged in epoch 1: the loss is 1e\+04"):
        fit_constant(1e4, training, label=1)


def test_the_loss_is_the_sum_of_the_exits_cross_entropies():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    # image 0, label 0: ln 2 + ln(4/3); image 1, label 1: ln 2 + ln 2; the mean over images
    expected = (3 * math.log(2) + math.log(4 / 3)) / 2
    assert exit_losses(logits, torch.tensor([0, 1])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ("constant", 0.9, 1.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 0.75, (1 - math.sqrt(0.5)) / 2),
        ("one_cycle", 0.0, 0.04),
        ("one_cycle", 0.15, 0.52),
        ("one_cycle", 0.3, 1.0),
        ("one_cycle", 0.65, 0.500002),
        ("one_cycle", 1.0, 4e-6),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, progress, factor):
    assert SCHEDULES[schedule](progress, 3) == pytest.approx(factor, rel=1e-9)


def test_annealing_is_torchs_with_a_t_max_of_ten_from_epoch_to_epoch():
    training = Training(25, 4, 0.1, weight_decay=0, schedule="cosine_annealing", patience=25)
    rates = [epoch.learning_rate for epoch in fit_constant(0.0, training, label=0).epochs]
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    expected = []
    for _ in rates:
        expected += torchs.get_last_lr()
        optimizer.step()
        torchs.step()
    assert rates == pytest.approx(expected, abs=1e-12)
    assert [rates[epoch] for epoch in (0, 5, 10, 20)] == pytest.approx([0.1, 0.05, 0, 0.1])


@pytest.mark.parametrize(
    ("optimizer", "moved", "at_most_by"), [("adam", 1e-3, 1e-6), ("adamw", 1e-2, 1.001e-3)]
)
def test_weight_decay_is_part_of_adams_gradient_and_apart_from_adamws(optimizer, moved, at_most_by):
    """BatchNorm's scales start at 1; one step of 1e-3 with a decay of 10.

    Adam's first step has the length 1e-3 whatever the gradient; AdamW takes 1e-3 · 10 off beside it.
    """
    small = Architecture(width=0.1, stem_stride=2)
    training = BackboneTraining(1, 4, 1e-3, 10.0, "constant", 1, optimizer=optimizer)
    done = train_backbone(Start(small, None), images(4), training, Setup(0))
    assert np.abs(1 - done.weights["features.0.1.weight"]) == pytest.approx(moved, abs=at_most_by)


def test_batches_hold_every_index_once_and_differ_by_one_at_most():
    batches = batches_of(33, 16, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [11, 11, 11]
    assert sorted(np.concatenate(batches).tolist()) == list(range(33))


def test_backbone_training_can_start_from_given_weights():
    small = Architecture(width=0.1, stem_stride=2)
    weights = to_arrays(Backbone(small))
    training = BackboneTraining(1, 4, 1e-12, weight_decay=0.0, schedule="constant", patience=1)
    done = train_backbone(Start(small, weights), images(4), training, Setup(0))
    assert np.allclose(done.weights["features.0.0.weight"], weights["features.0.0.weight"], atol=1e-9)


def test_validation_sees_every_example_once_and_in_order():
    examples = Examples((np.arange(10),), np.arange(10) % 2)
    batches = Batches(TrainingData(examples, examples, 2), 3, 4, lambda rows: torch.tensor(rows[0]))
    assert [inputs.tolist() for inputs, _ in batches.validation()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches.steps == 4
