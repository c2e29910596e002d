"""Whether the experts are right as often as they are sure, before and after temperature scaling."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from early_exit.distortion import expert_of
from early_exit.vocabulary import PRISTINE
from orchestrator.report.findings import Findings
from orchestrator.report.panels import (
    BLUE,
    INK,
    ORANGE,
    Line,
    distortions,
    draw,
    grid,
    name_levels,
    over_levels,
    policy_lines,
    with_legend,
    with_pristine,
)
from orchestrator.report.question import Drawing, Question, file_name, one_of_each
from orchestrator.results.tables import in_order

BEFORE_AND_AFTER = (
    Line("before calibration", ORANGE, "--", 1.2, "s", filled=False),
    Line("after calibration", BLUE, width=1.8),
)


def calibration(frame: pd.DataFrame) -> Figure:
    """Expected calibration error against the level, a row per exit: the pristine and the matching expert."""
    exits, kinds, experts = in_order(frame["exit"]), distortions(frame), policy_lines(frame["expert"])
    figure, panels = grid(len(exits), len(kinds), height=1.9)
    for row, number in zip(panels, exits, strict=True):
        of_exit = frame[frame["exit"] == number]
        for panel, kind in zip(row, kinds, strict=True):
            for expert in (e for e in dict.fromkeys((PRISTINE, expert_of(kind))) if e in experts):
                of_expert = with_pristine(of_exit[of_exit["expert"] == expert], kind)
                _before_and_after(panel, of_expert, experts[expert])
            panel.set_ylim(0, min(panel.get_ylim()[1], 103))
        name_levels(row, frame)
        row[0].set_ylabel(f"ECE at exit {number}, points")
    return with_legend(figure, *panels[0])


def _before_and_after(panel: Axes, of_expert: pd.DataFrame, line: Line) -> None:
    """Two lines in one colour, dashed before calibration."""
    after = replace(line, label=f"{line.label}, after calibration", width=1.8)
    before = replace(after, label=f"{line.label}, before", dashes="--", filled=False, width=1.2)
    over_levels(panel, of_expert[of_expert["quantity"] == "ece_before"], before)
    over_levels(panel, of_expert[of_expert["quantity"] == "ece_after"], after)


def reliability(bins: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Accuracy against confidence, a row per expert and a column per exit, before and after calibration."""
    experts, exits = in_order(bins["expert"]), in_order(bins["exit"])
    lines = policy_lines(experts)
    figure, panels = grid(len(experts), len(exits), height=1.9)
    for row, expert in zip(panels, experts, strict=True):
        for panel, number in zip(row, exits, strict=True):
            panel.plot([0, 100], [0, 100], color=INK, linewidth=0.7, linestyle=(0, (1, 3)))
            for calibrated, line in enumerate(BEFORE_AND_AFTER):
                of_exit = (bins["expert"] == expert) & (bins["exit"] == number)
                there = bins[of_exit & (bins["calibrated"] == calibrated)].sort_values("bin")
                confidence = 100 * there.loc[there["quantity"] == "mean_confidence", "mean"]
                draw(panel, confidence, there[there["quantity"] == "accuracy"], line)
            own = errors[(errors["expert"] == expert) & (errors["exit"] == number)].sort_values("calibrated")
            text = " → ".join(f"{100 * error:.1f}" for error in own["mean"])
            panel.set_title(f"exit {number}: ECE {text}", fontsize=8)
            panel.set(xlim=(-3, 103), ylim=(-3, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
        row[0].set_ylabel(f"{lines[str(expert)].label}\naccuracy, %")
    figure.supxlabel("confidence, %", fontsize=9)
    return with_legend(figure, panels[0][0])


def _drawings(found: Findings) -> Iterator[Drawing]:
    yield from one_of_each(found, "calibration", calibration)
    for table in found.of("reliability"):
        bins, errors = (found.frame(name, table.fidelity) for name in (table.name, "own_calibration"))
        what = "Reliability before and after calibration"
        drawing = Drawing(file_name(table.name), partial(reliability, bins, errors), what)
        yield drawing.of(found.run, table.fidelity, table.note)


QUESTION = Question(
    place=80,
    name="calibration",
    title="Calibration",
    lead="Answers in 15 bins by confidence; a calibrated expert is right as often as it is sure.",
    drawings=_drawings,
    tables=("calibration", "own_calibration", "reliability"),
)
