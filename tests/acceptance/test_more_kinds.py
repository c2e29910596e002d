"""A run with motion blur, JPEG and clipped noise: all of them are in its rows, tables and figures."""

import json

import pytest
from safetensors.numpy import load_file

FIELDS = {
    "shard_size": 100,
    "levels.gaussian_blur": [3],
    "levels.gaussian_noise": [40],
    "levels.gaussian_noise_clipped": [40],
    "levels.jpeg": [90],
    "levels.motion_blur": [9],
    "backbone.epochs": 1,
    "expert.epochs": 2,
}
CONDITIONS = {
    *(("pristine", 0), ("gaussian_blur", 3), ("gaussian_noise", 40)),
    *(("gaussian_noise_clipped", 40), ("jpeg", 90), ("motion_blur", 9)),
}
LABELS = {"pristine", "gaussian_blur", "gaussian_noise", "jpeg", "motion_blur"}
EXPERTS = LABELS | {"generalist"}
POLICIES = EXPERTS | {"oracle", "classifier", "edge-only", "cloud-only"}


@pytest.fixture(scope="module")
def home(new_home, small):
    home = new_home()
    output = home.command("submit", "full-paper", "--in-process", *small(FIELDS))
    assert (output.returncode, output.stderr) == (0, "")
    return home


@pytest.mark.parametrize("view", ["accuracy", "offloading", "exit_rates", "outage", "latency", "deadlines"])
def test_every_policy_has_rows_for_every_kind(home, view):
    found = home.rows(f"SELECT DISTINCT policy, kind, level FROM {view}")  # noqa: S608  # our own names
    assert set(found) == {(policy, *condition) for policy in POLICIES for condition in CONDITIONS}


def test_every_expert_is_evaluated_on_every_kind(home):
    found = home.rows("SELECT DISTINCT expert, kind, level FROM predictions")
    assert set(found) == {(expert, *condition) for expert in EXPERTS for condition in CONDITIONS}
    assert {expert for (expert,) in home.rows("SELECT expert FROM experts")} == EXPERTS
    assert {kind for (kind,) in home.rows("SELECT kind FROM payload_accuracy")} == LABELS


def test_the_classifier_has_an_output_for_every_kind_with_an_expert(home):
    (uri,) = home.rows("SELECT uri FROM artifacts WHERE stage = 'train-classifier'")
    assert load_file(home.path / "artifacts" / uri[0])["linear.bias"].shape == (5,)
    assert set(home.rows("SELECT DISTINCT kind, level FROM classifications")) == CONDITIONS
    assert {seen for (seen,) in home.rows("SELECT predicted FROM classifications")} <= LABELS


READ_BY_SWEEPS = """
SELECT DISTINCT read.stage, read.params ->> 'expert', read.params ->> 'kind', read.params ->> 'level'
FROM jobs sweep
JOIN job_dependencies d ON d.child_id = sweep.id AND d.reads
JOIN jobs read ON read.id = d.parent_id
WHERE sweep.stage = 'sweep' AND sweep.params ->> 'kind' = 'gaussian_noise_clipped'
AND sweep.params ->> 'policy' = ?
"""


@pytest.mark.parametrize(
    ("policy", "expert"),
    [("oracle", "gaussian_noise"), ("gaussian_noise", "gaussian_noise"), ("pristine", "pristine")],
)
def test_the_oracle_asks_the_noise_expert_about_clipped_noise(home, policy, expert):
    """And each expert is asked as itself: what it has learned may be what another has."""
    assert home.rows(READ_BY_SWEEPS, policy) == [("predict", expert, "gaussian_noise_clipped", 40)]


def test_what_the_oracle_answers_to_clipped_noise_is_what_the_noise_expert_answers(home):
    columns = "p_tar, n1, n2, n3, n4, c1, c2, c3, c4"
    statement = f"SELECT {columns} FROM sweep_points WHERE kind = 'gaussian_noise_clipped' AND policy = ?"  # noqa: S608
    of_oracle = home.rows(statement, "oracle")
    assert len(of_oracle) == 101
    assert of_oracle == home.rows(statement, "gaussian_noise")


def test_tables_have_a_line_for_every_condition_and_a_column_for_every_policy(home):
    records = json.loads(home.command("results", "--format", "json").stdout)
    by_table = {}
    for record in records:
        by_table.setdefault(record["table"], []).append(record)
    accuracy, seen = by_table["accuracy"], by_table["classifier_confusion"]
    assert {(r["kind"], r["level"]) for r in accuracy} == CONDITIONS
    assert {r["policy"] for r in accuracy} == POLICIES
    assert {(r["kind"], r["level"], r["predicted"]) for r in seen} == {
        (*condition, label) for condition in CONDITIONS for label in LABELS
    }


def test_a_report_has_figures_of_every_kind(home):
    done = home.command("report", "1")
    assert (done.returncode, done.stderr) == (0, "")
    drawn = {path.name for path in (home.path.parent / "report-1" / "figures").iterdir()}
    kinds = {kind for kind, _ in CONDITIONS} - {"pristine"}
    assert {f"{what}-{kind}.svg" for what in ("trade-off", "examples") for kind in kinds} <= drawn
