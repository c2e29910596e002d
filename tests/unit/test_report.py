"""The page of a report: what comes from outside is text in it, figures do not share ids, nothing is loaded."""

import re

import pandas as pd
import pytest
from matplotlib import rc_context

from db.models import RunState
from orchestrator.errors import UsageError
from orchestrator.files.folder import new_folder
from orchestrator.report.accuracy import accuracy
from orchestrator.report.calibration import reliability
from orchestrator.report.classifier import classifier_cost
from orchestrator.report.deadlines import deadlines
from orchestrator.report.experts import cross_expert
from orchestrator.report.latency import where_time_goes
from orchestrator.report.offloading import offloading
from orchestrator.report.page import (
    MARK,
    SETTINGS,
    Standings,
    _figures_of_ours,
    inlined,
    page,
    questions,
)
from orchestrator.report.panels import INK, policy_lines, with_every_kind
from orchestrator.report.question import Section
from orchestrator.results.layouts import LAYOUTS
from orchestrator.results.tables import Grid
from orchestrator.runs.manifest import Manifest
from orchestrator.runs.progress import Standing

HOSTILE = "<script>alert('x')</script>"
SPEC = {
    "seeds": [0, 1],
    "fidelity": ["corrected"],
    "p_tar": 0.8,
    "split_seed": 0,
    "device": "cpu",
    "hardware": HOSTILE,
}
RUN = Manifest(
    run_id=3,
    identity="f00d",
    plan="full-paper",
    profile="photos",
    state=RunState.FAILED,
    created_at=0.0,
    finished_at=None,
    spec=SPEC,
    code_version="0.1.0",
    environment={"python": "3.11", "platform": "Linux", "packages": {"numpy": "2.0"}},
    dataset=f"/data/{HOSTILE}",
    digest="beef",
    built_in=False,
    classes=("cat & dog", HOSTILE),
    images={"test": 20},
)


def shown(state, failures=()):
    grid = Grid(f"Title {HOSTILE}", ["kind"], [[HOSTILE]], "caption")
    sections = [Section("accuracy", "Accuracy", "lead", grids=(grid,), notes=(HOSTILE,))]
    now = Standing(state, {"sweep": {"succeeded": 3, "failed": 1}})
    return page(RUN, sections, {}, Standings(now, list(failures)))


def test_what_comes_from_outside_is_text():
    text = shown(RunState.FAILED, [f"failed: prepare: {HOSTILE}"])
    assert "<script" not in text
    # dataset, class, hardware and spec, title twice, cell, note, failure
    assert text.count("&lt;script&gt;") == 9
    assert "cat &amp; dog" in text


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (RunState.ACTIVE, "This run is not finished: 3 of 4 jobs are done"),
        (RunState.FAILED, "This run failed: 3 of 4 jobs are done"),
        (RunState.CANCELLED, "This run was cancelled: 3 of 4 jobs are done"),
    ],
)
def test_a_run_without_all_results_is_announced(state, said):
    assert said in shown(state)


def test_a_run_that_succeeded_has_no_warning():
    assert 'role="alert"' not in shown(RunState.SUCCEEDED)


def test_the_policy_lets_nothing_be_loaded():
    text = shown(RunState.SUCCEEDED)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert MARK in text
    assert re.findall(r'(?:src|href)="(?!#)', text) == []


def test_every_table_of_results_is_shown_by_one_question():
    shown = [name for question in questions() for name in question.tables]
    assert sorted(shown) == sorted(layout.table for layout in LAYOUTS)


def test_questions_have_names_and_places_of_their_own():
    asked = questions()
    assert len({question.name for question in asked}) == len(asked)
    assert [question.place for question in asked] == sorted({question.place for question in asked})


def frame():
    """Overall accuracy of one policy at three conditions, over two seeds."""
    lines = [("pristine", 0, 0.9), ("gaussian_blur", 3, 0.5), ("gaussian_noise", 20, 0.4)]
    return with_every_kind(
        pd.DataFrame(
            {"policy": "oracle", "kind": kind, "level": level, "mean": mean, "ci95": 0.05}
            for kind, level, mean in lines
        )
    )


def svg_of(figure, name, tmp_path):
    figure.savefig(tmp_path / "figure.svg")
    return inlined((tmp_path / "figure.svg").read_text(), name)


def test_figures_of_a_page_share_no_ids_and_take_its_colours(tmp_path):
    with rc_context(SETTINGS):
        one, two = (svg_of(offloading(frame()), name, tmp_path) for name in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', one)) <= ids[0]
    assert INK not in one
    assert "currentColor" in one
    assert "<metadata" not in one


def test_a_line_goes_through_the_means_in_percent_and_its_band_through_the_interval():
    figure = offloading(frame().assign(policy="pristine"))
    blur, noise = figure.axes
    line = next(line for line in blur.lines if line.get_label() == "pristine expert")
    assert line.get_xydata().tolist() == [[0, 90], [3, 50]]
    (band,) = blur.collections
    assert band.get_paths()[0].get_extents().get_points().tolist() == [[0, 45], [3, 95]]
    assert noise.lines[0].get_xydata().tolist() == [[0, 90], [20, 40]]


def test_one_seed_has_no_band():
    figure = offloading(frame().assign(policy="pristine", ci95=None))
    assert [len(panel.collections) for panel in figure.axes] == [0, 0]


def test_every_one_of_three_distortions_has_the_ticks_of_its_own_levels():
    lines = [("pristine", 0), ("gaussian_blur", 3), ("gaussian_noise", 40), ("jpeg", 90)]
    three = with_every_kind(
        pd.DataFrame(
            {
                "policy": "pristine",
                "kind": kind,
                "level": level,
                "quantity": quantity,
                "mean": 0.5,
                "ci95": None,
            }
            for kind, level in lines
            for quantity in ("overall_accuracy", "edge_accuracy")
        )
    )
    ticks = [[0, 3], [0, 40], [0, 90]]
    for figure, rows in ((offloading(three), 1), (accuracy(three, 0.8), 2)):
        assert [panel.get_xticks().tolist() for panel in figure.axes] == rows * ticks


def curves(figure):
    """Of every panel: the points of its lines by label, helping lines left out."""
    return [
        {line.get_label(): line.get_xydata().tolist() for line in panel.lines if line.get_label()[0] != "_"}
        for panel in figure.axes
    ]


def test_a_policy_has_its_colour_whichever_others_there_are():
    alone, among = policy_lines(["classifier"]), policy_lines(["oracle", "classifier", "pristine"])
    assert alone["classifier"] == among["classifier"]
    assert list(among) == ["pristine", "oracle", "classifier"]
    lines = policy_lines(["jpeg", "motion_blur", "pristine", "gaussian_blur", "gaussian_noise"])
    assert lines["jpeg"].label == "JPEG expert"
    assert len({line.colour for line in lines.values()}) == 5


def test_bars_stack_the_parts_of_a_latency():
    parts = {"classifier": 0.001, "edge": 0.002, "link": 0.004, "cloud": 0.008}
    whole = {"mean": 0.015, "p50": 0.003, "p95": 0.016}
    lines = [
        {"network": "paris", "policy": policy, "kind": kind, "level": level, "quantity": f"{name}_seconds"}
        | {"mean": seconds, "ci95": None}
        for policy in ("pristine", "classifier")
        for kind, level in (("pristine", 0), ("gaussian_blur", 3))
        for name, seconds in (parts | whole).items()
    ]
    (panel,) = where_time_goes(with_every_kind(pd.DataFrame(lines))).axes
    assert len(panel.patches) == 2 * 2 * 4
    tops = {round(bar.get_y() + bar.get_height(), 6) for bar in panel.patches}
    assert tops == {1, 3, 7, 15}  # milliseconds
    marks = [set(line.get_ydata()) for line in panel.lines]
    assert marks == [{3.0}, {16.0}] * 2


def test_a_reliability_diagram_is_accuracy_over_confidence_by_bin():
    bins = pd.DataFrame(
        {"expert": "pristine", "exit": 1, "calibrated": when, "bin": bin_, "quantity": quantity}
        | {"mean": mean, "ci95": None}
        for when, bin_, confidence, accuracy in (
            (0, 9, 0.5625, 0.25),
            (0, 15, 0.96875, 0.75),
            (1, 8, 0.5, 0.5),
        )
        for quantity, mean in (("mean_confidence", confidence), ("accuracy", accuracy))
    )
    errors = pd.DataFrame(
        {"expert": "pristine", "exit": 1, "calibrated": when, "quantity": "ece", "mean": mean}
        for when, mean in ((0, 0.265), (1, 0.0))
    )
    figure = reliability(bins, errors)
    assert curves(figure) == [
        {"before calibration": [[56.25, 25], [96.875, 75]], "after calibration": [[50, 50]]}
    ]
    assert figure.axes[0].get_title() == "exit 1: ECE 26.5 → 0.0"


def test_deadlines_are_drawn_over_target_times_for_pristine_the_middle_and_the_strongest_level():
    lines = [
        {"network": network, "policy": "oracle", "kind": kind, "level": level, "t_tar_seconds": t_tar}
        | {"quantity": "missed", "mean": missed, "ci95": None}
        for network in ("sao_paulo", "paris")
        for kind, level in (("pristine", 0), *(("gaussian_blur", level) for level in (1, 2, 3)))
        for t_tar, missed in ((0.0, 1.0), (0.5, level / 10))
    ]
    figure = deadlines(pd.DataFrame(lines), "gaussian_blur")
    assert [panel.get_title() for panel in figure.axes] == ["pristine", "blur 2", "blur 3", "", "", ""]
    label = "oracle: the true kind's expert"
    assert curves(figure)[:3] == [{label: [[0, 100], [0.5, 10 * level]]} for level in (0, 2, 3)]


def test_what_the_classifier_costs_is_drawn_in_points_and_milliseconds():
    conditions = (("pristine", 0), ("gaussian_noise", 20))
    answers = pd.DataFrame(
        {"kind": kind, "level": level, "quantity": quantity, "mean": mean, "ci95": None}
        for kind, level in conditions
        for quantity, mean in (("accuracy_cost", 0.02), ("offloading_cost", -0.01))
    )
    times = pd.DataFrame(
        {"network": "paris", "kind": kind, "level": level, "quantity": "latency_cost", "mean": 0.003}
        | {"ci95": None}
        for kind, level in conditions
    )
    lost, more, longer = curves(classifier_cost(answers, times))
    assert [list(panel.values()) for panel in (lost, more, longer)] == [
        [[[0, 2], [20, 2]]],
        [[[0, -1], [20, -1]]],
        [[[0, 3], [20, 3]]],
    ]


def test_the_cross_expert_matrix_has_a_row_per_condition_and_a_column_per_expert():
    shares = {("pristine", 0): (0.9, 0.8), ("gaussian_blur", 3): (0.3, 0.7)}
    cells = pd.DataFrame(
        {"kind": kind, "level": level, "policy": policy, "mean": mean, "ci95": 0.01}
        for (kind, level), means in shares.items()
        for policy, mean in zip(("pristine", "gaussian_blur"), means, strict=True)
    )
    (panel,) = cross_expert(cells).axes
    assert [text.get_text() for text in panel.texts] == [
        "90.0 ± 1.0",
        "80.0 ± 1.0",
        "30.0 ± 1.0",
        "70.0 ± 1.0",
    ]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["pristine", "blur 3"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["pristine", "blur"]


def test_only_a_report_of_ours_is_replaced(tmp_path):
    assert _figures_of_ours(tmp_path) is None
    (tmp_path / "report.html").write_text("<html>somebody's own</html>")
    assert _figures_of_ours(tmp_path) is None
    with pytest.raises(UsageError, match="not empty"), new_folder(tmp_path):
        pass
    (tmp_path / "report.html").write_text(f'<head>{MARK}</head><a href="figures/a-b.svg">SVG</a>')
    assert _figures_of_ours(tmp_path) == {"a-b.svg"}
