"""Outages and missed deadlines of batches, against values worked out by hand."""

import numpy as np
import pytest

from early_exit.exits import decide
from early_exit.outage import batch_size, missed_deadline, outage, shuffled_batches
from early_exit.vocabulary import EXITS

# Six images, two exits that matter: the first says 1, the last says 2. (confidence at exit 1, label)
#   0: leaves at exit 1, right    2: leaves, wrong     4: stays, right in the cloud
#   1: leaves, right              3: stays, wrong      5: stays, right in the cloud
CONFIDENCE = np.array([[c, 0.0, 0.0, 0.99] for c in (0.9, 0.9, 0.9, 0.1, 0.1, 0.1)])
PREDICTED = np.tile(np.array([1, 0, 0, 2]), (6, 1))
LABELS = np.array([1, 1, 0, 0, 2, 2])
# Two shuffles of two batches of three.
BATCHES = np.array([[[0, 1, 4], [2, 3, 5]], [[0, 2, 3], [3, 4, 5]]])


def judged(confidence, predicted, labels, p_tar, batches, exits=EXITS):
    """The outage of what a policy with these exits answers at ``p_tar``."""
    left_at, answer = decide(confidence, predicted, p_tar, exits)
    return outage(answer == labels, left_at < 4, p_tar, batches)


def test_outage_counts_batches_that_are_right_less_often_than_the_target():
    found = judged(CONFIDENCE, PREDICTED, LABELS, 0.8, BATCHES)
    # On the edge: 2/2, 0/1 | 1/2, nobody: outages 0, 1 | 1, 0. Mean of 1/2 and 1/2, which do not vary.
    assert (found.edge.mean, found.edge.ci95) == (0.5, 0.0)
    # Overall: 3/3, 1/3 | 1/3, 2/3: outages 0, 1 | 1, 1. Shuffles give 1/2 and 1: mean 3/4, s = √2/4,
    # and t of one degree of freedom is 12.706: 12.706 · (√2/4) / √2.
    assert (found.overall.mean, found.overall.ci95) == pytest.approx((0.75, 12.706 / 4))
    assert found.without_edge == 0.25


def test_a_batch_that_leaves_nobody_on_the_edge_is_no_outage_of_the_edge():
    found = judged(CONFIDENCE, PREDICTED, LABELS, 0.95, BATCHES)  # above 0.9: all are offloaded
    assert (found.edge.mean, found.without_edge) == (0.0, 1.0)


def test_without_a_cloud_nobody_is_left_out_of_the_edge():
    found = judged(CONFIDENCE, PREDICTED, LABELS, 0.8, BATCHES, (1, 2, 3))
    # Images 3 to 5 leave at exit 3, and exit 1, the surest of three, says 1: right are 0 and 1 alone.
    # 2/3, 0/3 | 1/3, 0/3: below 0.8 everywhere, on the edge as overall.
    assert (found.edge.mean, found.overall.mean, found.without_edge) == (1.0, 1.0, 0.0)


def test_without_an_edge_it_makes_no_promise_there():
    found = judged(CONFIDENCE, PREDICTED, LABELS, 0.6, BATCHES, (4,))
    # The final exit says 2: right are 4 and 5. 1/3, 1/3 | 0/3, 2/3: below 0.6 but for the last.
    assert (found.edge.mean, found.without_edge) == (0.0, 1.0)
    assert found.overall.mean == 0.75


def test_an_accuracy_of_exactly_the_target_is_no_outage():
    confidence, predicted = np.full((10, 4), 0.9), np.ones((10, 4), np.int64)
    labels = np.array([1] * 8 + [0] * 2)
    batches = np.stack([[np.arange(10)]] * 2)
    exact, above = (judged(confidence, predicted, labels, p_tar, batches) for p_tar in (0.8, 0.82))
    assert (exact.edge.mean, exact.overall.mean) == (0.0, 0.0)
    assert (above.edge.mean, above.overall.mean) == (1.0, 1.0)


def test_a_deadline_is_missed_by_a_slow_batch_and_by_a_wrong_one():
    right = np.array([True, True, False, False, True, True])
    seconds = np.array([0.125, 0.125, 0.125, 0.5, 0.5, 0.5])
    found = missed_deadline(right, seconds, 0.6, (0.0, 0.25, 0.375, 0.5, 2.5), BATCHES)
    # Accuracies 1, 1/3 | 1/3, 2/3: the second and the third batch are wrong at any time.
    # Mean times 1/4, 3/8 | 1/4, 1/2: above 0 all, above 1/4 the second and fourth, above 3/8 the fourth.
    assert [estimate.mean for estimate in found] == [1.0, 0.75, 0.75, 0.5, 0.5]
    # At 1/4: wrong or late are batches 2 | 3 and 4, shuffles 1/2 and 1.
    assert found[1].ci95 == pytest.approx(12.706 / 4)


def test_without_a_deadline_what_is_missed_is_the_overall_outage():
    rng = np.random.default_rng(0)
    confidence, predicted = rng.random((200, 4)), rng.integers(0, 2, (200, 4))
    labels = rng.integers(0, 2, 200)
    batches = shuffled_batches(200, np.random.default_rng(1))
    found = judged(confidence, predicted, labels, 0.5, batches)
    _, answer = decide(confidence, predicted, 0.5)
    (late,) = missed_deadline(answer == labels, np.ones(200), 0.5, (2.5,), batches)
    assert late == found.overall
    assert 0 < late.mean < 1


@pytest.mark.parametrize(
    ("images", "size"),
    [(100_000, 256), (1024, 256), (1023, 255), (200, 50), (7, 1), (4, 1), (3, 1), (1, 1)],
)
def test_a_batch_is_256_images_or_a_quarter_of_all(images, size):
    assert batch_size(images) == size


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one test image"):
        shuffled_batches(0, np.random.default_rng(0))


def test_every_shuffle_holds_an_image_once_and_leaves_out_what_fills_no_batch():
    batches = shuffled_batches(1100, np.random.default_rng(0))
    assert batches.shape == (100, 4, 256)
    for shuffle in batches.reshape(100, -1):
        assert len(set(shuffle.tolist())) == 1024
    # What is left out differs, so that in the end all images count: 100 · 76 places for 1,100 images.
    assert set(batches.ravel().tolist()) == set(range(1100))


def test_shuffles_follow_from_the_generator_alone():
    one, same, other = (shuffled_batches(50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
