"""The paper's effects on the built-in dataset, read from the views of a demo run as a user reads them."""

import pytest

KINDS = ("gaussian_blur", "gaussian_noise")


@pytest.fixture(
    scope="module",
    params=[0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))],
    ids=lambda seed: f"seed {seed}",
)
def demo(request, new_home):
    """The home of a demo run of one seed; seed 0 is the default command."""
    home = new_home()
    seeds = [] if request.param == 0 else ["--set", f"seed={request.param}"]
    output = home.command("submit", "full-paper", *seeds, seconds=1200)
    assert output.returncode == 0, output.stderr
    yield home
    home.kill_everything()


def accuracy(home, kind, policy):
    """{level: (overall, on the edge, edge exits)} at p_tar 0.8."""
    statement = (
        "SELECT level, overall_accuracy, edge_accuracy, edge_exits FROM accuracy"
        " WHERE run = (SELECT run FROM latest_run) AND p_tar = 0.8 AND kind = ? AND policy = ?"
    )
    return {level: numbers for level, *numbers in home.rows(statement, kind, policy)}


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
