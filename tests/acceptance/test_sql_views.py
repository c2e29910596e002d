"""The views and the SQL console on a finished run."""

import csv
import io
import json

import pytest

from db.results.views import VIEWS
from orchestrator.results.layouts import LAYOUTS


def answer(home, statement, form="json"):
    done = home.command("sql", statement, "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_rows_that_start_with_their_run(finished, view):
    rows = json.loads(answer(finished.home, f"select * from {view}"))  # noqa: S608  # our own names
    assert rows
    assert next(iter(rows[0])) == "run"
    runs = {run for (run,) in finished.home.rows("SELECT id FROM runs")}
    assert {row["run"] for row in rows} <= runs


def most_mixed_points(home):
    """For each expert the point where its images leave at as many places as there are."""
    statement = (
        "SELECT s.policy, s.kind, s.level, s.p_tar FROM sweep_points s"
        " JOIN jobs j ON j.artifact_id = s.artifact_id AND j.run_id = 1"
        " WHERE s.policy IN ('pristine', 'gaussian_blur', 'gaussian_noise')"
        " ORDER BY max(s.n1, s.n2, s.n3, s.n4), s.policy, s.kind, s.level, s.p_tar"
    )
    points = {}
    for policy, kind, level, p_tar in home.rows(statement):
        points.setdefault(policy, (policy, kind, level, p_tar))
    return list(points.values())


def test_accuracy_is_what_the_predictions_recount_to(finished, recounted):
    home = finished.home
    points = most_mixed_points(home)
    assert len(points) == 3
    points += [(*of, p_tar) for *of, _ in points for p_tar in (0.0, 1.0)]  # all on the edge, and none
    for point in points:
        statement = (
            "SELECT overall_accuracy, edge_accuracy, edge_exits, images FROM accuracy"
            " WHERE run = 1 AND policy = ? AND kind = ? AND level = ? AND p_tar = ?"
        )
        assert home.rows(statement, *point) == [pytest.approx(recounted(home, *point))]


STATEMENT = "select policy, level, overall_accuracy from accuracy where run = 1 and p_tar = 0.8 order by 1, 2"


def test_csv_and_json_parse_to_the_rows_of_the_database(finished):
    expected = finished.home.rows(STATEMENT)
    assert len(expected) == 8 * 5
    read = list(csv.reader(io.StringIO(answer(finished.home, STATEMENT, "csv"))))
    assert read[0] == ["policy", "level", "overall_accuracy"]
    assert [(policy, int(level), float(share)) for policy, level, share in read[1:]] == expected
    records = json.loads(answer(finished.home, STATEMENT, "json"))
    assert [tuple(record.values()) for record in records] == expected


def test_results_are_printed_as_csv_and_json_too(finished):
    tables = {layout.table for layout in LAYOUTS} - {"ablation"}  # the run has one fidelity
    as_csv = finished.home.command("results", "1", "--format", "csv").stdout
    assert {row["table"] for row in csv.DictReader(io.StringIO(as_csv))} == tables
    as_json = finished.home.command("results", "1", "--format", "json").stdout
    assert {record["table"] for record in json.loads(as_json)} == tables
