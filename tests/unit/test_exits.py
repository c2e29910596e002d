import numpy as np
import pytest

from early_exit.exits import THRESHOLDS, decide, softmax_confidence, sweep

# Four images; predicted classes name the exit that predicts them, so that an answer shows where it comes from.
PREDICTED = np.tile(np.array([10, 20, 30, 40]), (4, 1))
CONFIDENCE = np.array(
    [
        [0.90, 0.10, 0.10, 0.95],
        [0.50, 0.80, 0.85, 0.90],
        [0.30, 0.60, 0.60, 0.50],
        [0.10, 0.20, 0.30, 0.80],
    ]
)

EDGE, CLOUD = (1, 2, 3), (4,)


@pytest.mark.parametrize(
    ("p_tar", "exits", "answers"),
    [
        (0.0, [1, 1, 1, 1], [10, 10, 10, 10]),
        (0.5, [1, 2, 2, 4], [10, 20, 20, 40]),
        (0.8, [1, 3, 4, 4], [10, 30, 20, 40]),  # 0.80 does not exceed 0.8; the final exit's 0.80 suffices
        (0.9, [4, 4, 4, 4], [40, 40, 20, 40]),  # image 1: 0.90 at exit 4 is enough; image 2: exit 2 before 3
        (1.0, [4, 4, 4, 4], [40, 40, 20, 40]),
    ],
)
def test_an_image_leaves_at_the_first_branch_that_exceeds_the_target(p_tar, exits, answers):
    exit_numbers, answer = decide(CONFIDENCE, PREDICTED, p_tar)
    assert exit_numbers.tolist() == exits
    assert answer.tolist() == answers


def test_the_final_exit_answers_when_its_confidence_just_reaches_the_target():
    _, answer = decide(np.array([[0.8, 0.1, 0.1, 0.8]]), np.array([[10, 20, 30, 40]]), 0.8)
    assert answer.tolist() == [40]


def test_an_undecided_image_gets_the_earliest_of_equally_confident_answers():
    _, answer = decide(np.full((1, 4), 0.4), np.array([[10, 20, 30, 40]]), 0.5)
    assert answer.tolist() == [10]


@pytest.mark.parametrize(
    ("p_tar", "exits", "answers"),
    [
        (0.5, [1, 2, 2, 3], [10, 20, 20, 30]),  # image 3: none exceeds 0.5, exit 3 is the most confident
        (
            0.6,
            [1, 2, 3, 3],
            [10, 20, 30, 30],
        ),  # image 2: 0.60 does not exceed 0.6, but suffices at the last exit
        (0.8, [1, 3, 3, 3], [10, 30, 20, 30]),  # image 2: the first of the equally confident
        (1.0, [3, 3, 3, 3], [10, 30, 20, 30]),  # image 0: all the way, and back to the surest of three
    ],
)
def test_without_a_cloud_the_surest_branch_answers_what_none_is_sure_of(p_tar, exits, answers):
    exit_numbers, answer = decide(CONFIDENCE, PREDICTED, p_tar, EDGE)
    assert exit_numbers.tolist() == exits
    assert answer.tolist() == answers


@pytest.mark.parametrize("p_tar", [0.0, 0.5, 0.8, 1.0])
def test_without_an_edge_the_final_exit_answers_everything_however_unsure_it_is(p_tar):
    exit_numbers, answer = decide(CONFIDENCE, PREDICTED, p_tar, CLOUD)
    assert exit_numbers.tolist() == [4, 4, 4, 4]
    assert answer.tolist() == [40, 40, 40, 40]


def test_confidence_is_the_largest_softmax_after_division_by_the_temperature():
    logits = np.zeros((1, 4, 3), np.float32)
    logits[0, :, 2] = np.log(4)
    confidence, predicted = softmax_confidence(logits, np.array([1.0, 2.0, 0.5, 1.0]))
    # exp(log 4 / T) is 4, 2, 16, 4 beside two ones.
    assert confidence[0] == pytest.approx([4 / 6, 2 / 4, 16 / 18, 4 / 6], rel=1e-6)
    assert predicted.tolist() == [[2, 2, 2, 2]]
    assert confidence.dtype == np.float64


def test_large_logits_do_not_overflow():
    logits = np.array([[[1e4, -1e4]] * 4], np.float32)
    confidence, predicted = softmax_confidence(logits, np.ones(4))
    assert confidence.tolist() == [[1.0] * 4]
    assert predicted.tolist() == [[0] * 4]


def test_a_sweep_counts_who_leaves_where_and_who_is_right():
    label = np.array([10, 30, 20, 0])
    counts = sweep(CONFIDENCE, PREDICTED, label, thresholds=(0.5, 0.8))
    assert counts.n.tolist() == [[1, 2, 0, 1], [1, 0, 1, 2]]
    assert counts.c.tolist() == [[1, 1, 0, 0], [1, 0, 1, 1]]
    # With replacement, and not strictly: 0.50 counts at 0.5, 0.80 at 0.8.
    assert counts.r.tolist() == [[2, 2, 2], [1, 1, 1]]


def test_a_sweep_counts_nobody_at_an_exit_that_is_not_there():
    label = np.array([10, 30, 20, 40])
    edge = sweep(CONFIDENCE, PREDICTED, label, (0.5, 0.8), EDGE)
    assert edge.n.tolist() == [[1, 2, 1, 0], [1, 0, 3, 0]]
    assert edge.c.tolist() == [[1, 1, 0, 0], [1, 0, 2, 0]]
    assert edge.r.tolist() == [[2, 2, 2], [1, 1, 1]]
    cloud = sweep(CONFIDENCE, PREDICTED, label, (0.5, 0.8), CLOUD)
    assert cloud.n.tolist() == [[0, 0, 0, 4]] * 2
    assert cloud.c.tolist() == [[0, 0, 0, 1]] * 2
    assert cloud.r.tolist() == [[0, 0, 0]] * 2


def test_fewer_images_leave_early_as_the_target_rises():
    rng = np.random.default_rng(0)
    confidence, predicted = rng.random((200, 4)), rng.integers(0, 5, (200, 4))
    counts = sweep(confidence, predicted, rng.integers(0, 5, 200))
    assert counts.n.shape == (len(THRESHOLDS), 4)
    assert (counts.n.sum(axis=1) == 200).all()
    assert (np.diff(counts.n[:, :3].cumsum(axis=1), axis=0) <= 0).all()
    assert (counts.c <= counts.n).all()
    assert counts.n[-1].tolist() == [0, 0, 0, 200]


def test_no_images_count_as_none():
    nobody = np.zeros((0, 4))
    counts = sweep(nobody, nobody.astype(np.int64), np.zeros(0, np.int64), (0.5,))
    assert counts.n.tolist() == [[0, 0, 0, 0]]
