"""What the oddities of the released code change."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from early_exit.policies import ORACLE
from early_exit.vocabulary import PRISTINE
from orchestrator.report.findings import Findings
from orchestrator.report.panels import (
    differences,
    distortions,
    grid,
    levels,
    other_lines,
    percent,
    policy_lines,
    with_every_kind,
    with_legend,
)
from orchestrator.report.question import Drawing, Question, full_caption

GAINS = {
    "overall_accuracy_gain": "overall accuracy",
    "edge_exit_gain": "edge exits",
    "edge_accuracy_gain": "accuracy on the edge",
}


def fidelities(frame: pd.DataFrame) -> Figure:
    """Overall accuracy of the pristine and of the matching expert, a line per fidelity."""
    lines = other_lines(frame["fidelity"])
    figure, panels = grid(2, len(distortions(frame)))
    overall, policies = frame[frame["quantity"] == "overall_accuracy"], policy_lines((PRISTINE, ORACLE))
    for row, (policy, line) in zip(panels, policies.items(), strict=True):
        levels(row, overall[overall["policy"] == policy], lines, by="fidelity")
        percent(row, f"overall accuracy, %\n{line.label}")
    return with_legend(figure, panels[0][0])


def ablation(frame: pd.DataFrame) -> Figure:
    """What each fidelity changes against corrected, in points, a line per fidelity."""
    lines = other_lines(frame["fidelity"])
    lines.pop("corrected", None)
    figure, panels = grid(len(GAINS), len(distortions(frame)))
    for row, (quantity, label) in zip(panels, GAINS.items(), strict=True):
        levels(row, frame[frame["quantity"] == quantity], lines, by="fidelity")
        row[0].set_ylabel(f"{label},\nmore than corrected, points")
        differences(row)
    return with_legend(figure, panels[0][0])


def _drawings(found: Findings) -> Iterator[Drawing]:
    run, compared = found.run, [table.fidelity for table in found.of("accuracy")]
    if len(compared) > 1:
        frame = with_every_kind(pd.concat([found.frame("accuracy", fidelity) for fidelity in compared]))
        what = f"Overall accuracy at p_tar {run.p_tar:g} by fidelity"
        yield Drawing("fidelity", partial(fidelities, frame), full_caption(run, what, ", ".join(compared)))
    for table in found.of("ablation"):
        draw = partial(ablation, found.frame("ablation", table.fidelity))
        what = f"What each fidelity changes for the oracle policy at p_tar {run.p_tar:g}"
        yield Drawing("ablation", draw, full_caption(run, what, table.fidelity, table.note))


QUESTION = Question(
    place=110,
    name="fidelity",
    title="Fidelity",
    lead="The same run with the released code's oddities switched on, one by one or all together.",
    drawings=_drawings,
    tables=("ablation",),
)
