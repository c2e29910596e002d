"""The page of a report: what comes from outside is text in it, figures do not share ids, nothing is loaded."""

import re

import pandas as pd
import pytest
from matplotlib import rc_context

from db.models import RunState
from orchestrator import figures
from orchestrator.errors import UsageError
from orchestrator.folder import new_folder
from orchestrator.manifest import Manifest
from orchestrator.progress import Standing
from orchestrator.report import MARK, SETTINGS, Standings, _figures_of_ours, inlined, page
from orchestrator.results import Grid
from orchestrator.sections import Findings, Section

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
    found = Findings(RUN, [], pd.DataFrame(), None, [])
    grid = Grid(f"Title {HOSTILE}", ["kind"], [[HOSTILE]], "caption")
    sections = [Section("accuracy", "Accuracy", "lead", grids=[grid], notes=(HOSTILE,))]
    now = Standing(state, {"sweep": {"succeeded": 3, "failed": 1}})
    return page(found, sections, {}, Standings(now, list(failures)))


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


def frame():
    """Overall accuracy of one policy at three conditions, over two seeds."""
    lines = [("pristine", 0, 0.9), ("gaussian_blur", 3, 0.5), ("gaussian_noise", 20, 0.4)]
    return pd.DataFrame(
        {"policy": "oracle", "kind": kind, "level": level, "mean": mean, "margin": 0.05}
        for kind, level, mean in lines
    )


def svg_of(figure, name, tmp_path):
    figure.savefig(tmp_path / "figure.svg")
    return inlined((tmp_path / "figure.svg").read_text(), name)


def test_figures_of_a_page_share_no_ids_and_take_its_colours(tmp_path):
    with rc_context(SETTINGS):
        one, two = (svg_of(figures.offloading(frame()), name, tmp_path) for name in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', one)) <= ids[0]
    assert figures.INK not in one
    assert "currentColor" in one
    assert "<metadata" not in one


def test_a_line_goes_through_the_means_in_percent_and_its_band_through_the_interval():
    figure = figures.offloading(frame().assign(policy="pristine"))
    blur, noise = figure.axes
    line = next(line for line in blur.lines if line.get_label() == "pristine expert")
    assert line.get_xydata().tolist() == [[0, 90], [3, 50]]
    (band,) = blur.collections
    assert band.get_paths()[0].get_extents().get_points().tolist() == [[0, 45], [3, 95]]
    assert noise.lines[0].get_xydata().tolist() == [[0, 90], [20, 40]]


def test_one_seed_has_no_band():
    figure = figures.offloading(frame().assign(policy="pristine", margin=None))
    assert [len(panel.collections) for panel in figure.axes] == [0, 0]


def test_only_a_report_of_ours_is_replaced(tmp_path):
    assert _figures_of_ours(tmp_path) is None
    (tmp_path / "report.html").write_text("<html>somebody's own</html>")
    assert _figures_of_ours(tmp_path) is None
    with pytest.raises(UsageError, match="not empty"), new_folder(tmp_path):
        pass
    (tmp_path / "report.html").write_text(f'<head>{MARK}</head><a href="figures/a-b.svg">SVG</a>')
    assert _figures_of_ours(tmp_path) == {"a-b.svg"}
