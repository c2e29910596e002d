"""The paper's effects on the built-in dataset, read from the views of a demo run as a user reads them.

The run ends with what they are read from: without baselines, outages and times.
"""

import itertools
import math

import pytest

pytestmark = pytest.mark.slow

P_TAR = 0.8
KINDS = ("gaussian_blur", "gaussian_noise")


@pytest.fixture(
    scope="module",
    params=[0, 1, 2],
    ids=lambda seed: f"seed {seed}",
)
def demo(request, new_home):
    """The home of a demo run of one seed; 0 is the default command's."""
    home = new_home()
    options = ["--set", f"seeds={request.param}", "--set", "baselines=[]"]
    output = home.command("submit", "offloading", *options, seconds=1200)
    assert output.returncode == 0, output.stderr
    yield home
    home.kill_everything()


def accuracy(home, kind, policy):
    """{level: (overall, on the edge, edge exits)} at p_tar 0.8."""
    statement = (
        "SELECT level, overall_accuracy, edge_accuracy, edge_exits FROM accuracy"
        " WHERE run = (SELECT run FROM latest_run) AND p_tar = ? AND kind = ? AND policy = ? ORDER BY level"
    )
    return {level: numbers for level, *numbers in home.rows(statement, P_TAR, kind, policy)}


@pytest.mark.timeout(1800)
def test_nine_of_ten_undistorted_images_are_answered_right(demo):
    overall, *_ = accuracy(demo, "pristine", "pristine")[0]
    assert overall >= 0.9


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_the_matching_expert_gains_ten_points_at_three_levels_or_more(demo, kind):
    pristine, expert = accuracy(demo, kind, "pristine"), accuracy(demo, kind, kind)
    assert len(pristine) == len(expert) == 5
    gains = {level: expert[level][0] - pristine[level][0] for level in expert}
    assert sum(gain >= 0.1 for gain in gains.values()) >= 3, gains


@pytest.mark.timeout(1800)
def test_the_matching_expert_is_right_on_the_edge_where_pristine_is_confidently_wrong(demo):
    compared = {}
    for kind in KINDS:
        pristine, expert = accuracy(demo, kind, "pristine"), accuracy(demo, kind, kind)
        for level, (_, on_edge, exits) in pristine.items():
            if exits >= 20 and expert[level][2] >= 20 and on_edge < 0.8:
                compared[kind, level] = expert[level][1] - on_edge
    assert compared, "no level where pristine's edge accuracy falls below 80 % on 20 images"
    assert all(gain >= 0.15 for gain in compared.values()), compared


def keeps_its_promise(right, exits):
    """Whether ``right`` of so many that exit on the edge are p_tar, but for two standard errors."""
    return right / exits >= P_TAR - 2 * math.sqrt(P_TAR * (1 - P_TAR) / exits)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["pristine", *KINDS])
def test_the_matching_expert_is_right_on_the_edge_as_often_as_it_promises(demo, kind):
    """At each level but the strongest, where the one temperature of all levels is too bold; and over all of them."""
    expert = accuracy(demo, kind, kind)
    right = {level: round(on_edge * exits) for level, (_, on_edge, exits) in expert.items() if exits}
    promised = list(expert)[:-1] if kind != "pristine" else [0]
    assert all(keeps_its_promise(right[level], expert[level][2]) for level in promised if level in right), (
        expert
    )
    assert keeps_its_promise(sum(right.values()), sum(exits for *_, exits in expert.values())), expert


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_pristine_goes_on_answering_on_the_edge_while_its_accuracy_there_collapses(demo, kind):
    pristine, expert = accuracy(demo, kind, "pristine"), accuracy(demo, kind, kind)
    falling = [on_edge for _, on_edge, _ in pristine.values()]
    assert falling[0] >= P_TAR
    assert falling[-1] <= 0.5
    # Ten classes: where hardly anything is recognised, accuracies differ by chance alone.
    assert all(after <= before + 0.05 for before, after in itertools.pairwise(falling)), falling
    strongest = max(pristine)
    assert pristine[strongest][2] > expert[strongest][2]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "point",
    [("pristine", "gaussian_blur", 3, 0.8), ("gaussian_blur", "gaussian_blur", 3, 0.8),
     ("gaussian_noise", "gaussian_noise", 20, 0.7)],
)  # fmt: skip
def test_accuracy_is_what_the_predictions_recount_to(demo, recounted, point):
    statement = (
        "SELECT overall_accuracy, edge_accuracy, edge_exits, images FROM accuracy"
        " WHERE run = 1 AND policy = ? AND kind = ? AND level = ? AND p_tar = ?"
    )
    assert demo.rows(statement, *point) == [pytest.approx(recounted(demo, *point))]
