"""The paper's effects on photographs: every threshold that the frozen backbone must reach at p_tar 0.8.

``EARLY_EXIT_DATASET`` is a folder of photographs in ImageFolder layout, ``EARLY_EXIT_WEIGHTS`` a MobileNetV2's
``features.*`` in safetensors.
"""

import os

import pytest

VARIABLES = ("EARLY_EXIT_DATASET", "EARLY_EXIT_WEIGHTS")
MISSING = [name for name in VARIABLES if not os.environ.get(name)]

pytestmark = [
    pytest.mark.photographs,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}"),
]

STRONG = [
    *(("gaussian_blur", level) for level in (3, 4, 5)),
    *(("gaussian_noise", level) for level in (10, 20, 30, 40)),
]
EVERY = [
    *(("gaussian_blur", level) for level in (1, 2, 3, 4, 5)),
    *(("gaussian_noise", level) for level in (5, 10, 20, 30, 40)),
]


@pytest.fixture(scope="module")
def photographs(new_home):
    """The home of a finished run on them."""
    home = new_home()
    dataset, weights = (os.environ[name] for name in VARIABLES)
    given = ("--dataset", os.path.abspath(dataset), "--weights", os.path.abspath(weights))
    output = home.command("submit", "full-paper", *given, "--set", "image_size=224", seconds=7200)
    assert output.returncode == 0, output.stderr
    assert output.stdout.startswith("Profile photos: ")
    return home


@pytest.fixture
def accuracy(photographs):
    """``accuracy(policy, kind, level)``: (overall, on the edge, edge exits) at p_tar 0.8."""

    def read(policy, kind, level):
        statement = (
            "SELECT overall_accuracy, edge_accuracy, edge_exits FROM accuracy"
            " WHERE run = 1 AND p_tar = 0.8 AND policy = ? AND kind = ? AND level = ?"
        )
        (row,) = photographs.rows(statement, policy, kind, level)
        return row

    return read


def test_undistorted_photographs_are_answered_right(accuracy):
    overall, *_ = accuracy("pristine", "pristine", 0)
    assert overall >= 0.85


@pytest.mark.parametrize(("kind", "level"), STRONG)
def test_the_matching_expert_beats_pristine_by_ten_points(accuracy, kind, level):
    assert accuracy(kind, kind, level)[0] - accuracy("pristine", kind, level)[0] >= 0.1


@pytest.mark.parametrize(("kind", "level"), EVERY)
def test_the_matching_expert_is_right_on_the_edge_wherever_twenty_images_exit(accuracy, kind, level):
    _, on_edge, exits = accuracy(kind, kind, level)
    if exits < 20:
        pytest.skip(f"{exits} images exit at the edge")
    assert on_edge >= 0.8


@pytest.mark.parametrize(("kind", "level"), [("gaussian_blur", 5), ("gaussian_noise", 40)])
def test_pristine_is_wrong_on_the_edge_at_the_strongest_level(accuracy, kind, level):
    _, on_edge, exits = accuracy("pristine", kind, level)
    assert exits > 0
    assert on_edge < 0.5


def test_the_classifier_sees_the_kind_of_nearly_all_images_that_show_it(photographs):
    statement = (
        "SELECT 1.0 * SUM(CASE WHEN predicted = kind THEN images END) / SUM(images) FROM classifier_confusion"
        " WHERE run = 1 AND (kind = 'gaussian_blur' AND level >= 2 OR kind = 'gaussian_noise' AND level >= 10)"
    )
    assert photographs.value(statement) >= 0.95
