"""What the system is compared with, as a finished run's views have it."""

import pytest

CONDITIONS = {("pristine", 0), *((kind, level) for kind, levels in (
    ("gaussian_blur", (1, 3)), ("gaussian_noise", (10, 40))) for level in levels)}  # fmt: skip
OFFLOADED = "SELECT DISTINCT offloading_probability FROM offloading WHERE run = 1 AND policy = ?"
OF_POLICY = "SELECT DISTINCT kind, level FROM accuracy WHERE run = ? AND policy = ?"


@pytest.fixture(scope="module")
def total(finished, copy_of, small):
    """A home in which the finished run is followed by one with experts that all layers were trained for: run 2."""
    home = copy_of(finished.home)
    output = home.command("submit", "full-paper", "--in-process", *small({"baselines": ["total"]}))
    assert output.returncode == 0, output.stderr
    return home


@pytest.mark.parametrize(("policy", "share"), [("edge-only", 0), ("cloud-only", 1)])
def test_nothing_leaves_without_a_cloud_and_everything_without_an_edge(finished, policy, share):
    assert finished.home.rows(OFFLOADED, policy) == [(share,)]


def test_cloud_only_is_as_right_as_the_pristine_experts_final_exit(finished):
    final = (
        "SELECT p.kind, p.level, AVG(p.correct) FROM predictions p JOIN jobs j ON j.artifact_id = p.artifact_id"
        " WHERE j.run_id = 1 AND p.expert = 'pristine' AND p.exit = 4 GROUP BY p.kind, p.level ORDER BY 1, 2"
    )
    alone = (
        "SELECT DISTINCT kind, level, overall_accuracy FROM accuracy"
        " WHERE run = 1 AND policy = 'cloud-only' ORDER BY 1, 2"
    )
    assert finished.home.rows(alone) == [
        (*of, pytest.approx(share)) for *of, share in finished.home.rows(final)
    ]


def test_cloud_only_takes_the_link_and_the_cloud_and_the_same_for_every_form_of_a_feature_map(finished):
    spent = (
        "SELECT network, COUNT(DISTINCT payload), MIN(mean_seconds), MAX(mean_seconds),"
        " MIN(link_seconds + cloud_seconds) FROM latency"
        " WHERE run = 1 AND policy = 'cloud-only' GROUP BY network"
    )
    for _, payloads, least, most, parts in finished.home.rows(spent):
        assert payloads == 4
        assert least == most == pytest.approx(parts)
    image = "SELECT payload_bytes FROM stage_times WHERE part = 'whole'"
    assert set(finished.home.rows(image)) == {(32 * 32 * 3,)}


@pytest.mark.parametrize("policy", ["generalist", "edge-only", "cloud-only"])
def test_a_baseline_has_results_for_every_kind_and_level(finished, policy):
    assert set(finished.home.rows(OF_POLICY, 1, policy)) == CONDITIONS


def test_all_layers_are_trained_once_for_each_distortion_and_nothing_else_but_times_is_made_again(
    total,
):
    made = total.computed_stages(2)
    assert made.pop("adapt-expert") == 2
    of_theirs = {"features", "predict", "sweep", "outage", "reliability", "measure", "latency", "deadlines"}
    assert set(made) <= of_theirs
    for kind in ("gaussian_blur", "gaussian_noise"):
        assert set(total.rows(OF_POLICY, 2, f"total_{kind}")) == CONDITIONS
