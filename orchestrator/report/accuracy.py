"""How often the answers are right: of all images, and of those that are answered on the edge."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.findings import Findings
from orchestrator.report.panels import INK, distortions, grid, levels, percent, policy_lines, with_legend
from orchestrator.report.question import Drawing, Question, one_of_each


def accuracy(frame: pd.DataFrame, p_tar: float) -> Figure:
    """Overall and edge accuracy against the level, a line per policy; the target as a dotted line."""
    figure, panels = grid(2, len(distortions(frame)))
    lines = policy_lines(frame["policy"])
    for row, quantity in zip(panels, ("overall_accuracy", "edge_accuracy"), strict=True):
        levels(row, frame[frame["quantity"] == quantity], lines)
        percent(row, "overall accuracy, %" if quantity == "overall_accuracy" else "accuracy on the edge, %")
    for panel in panels[1]:
        panel.axhline(100 * p_tar, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        panel.annotate(
            "p_tar", (1, 100 * p_tar), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
    return with_legend(figure, panels[0][0])


def _drawings(found: Findings) -> Iterator[Drawing]:
    return one_of_each(found, "accuracy", partial(accuracy, p_tar=found.run.p_tar))


QUESTION = Question(
    place=10,
    name="accuracy",
    title="Accuracy",
    lead="Of all images, and of those that are answered on the edge.",
    drawings=_drawings,
    tables=("accuracy",),
)
