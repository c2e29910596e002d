"""How many images leave the edge."""

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.panels import distortions, grid, levels, percent, policy_lines, with_legend
from orchestrator.report.question import Question, one_of_each


def offloading(frame: pd.DataFrame) -> Figure:
    """The share of images that leave the edge against the level, a line per policy."""
    figure, panels = grid(1, len(distortions(frame)), height=2.9)
    levels(panels[0], frame, policy_lines(frame["policy"]))
    percent(panels[0], "offloading probability, %")
    return with_legend(figure, panels[0][0])


QUESTION = Question(
    place=20,
    name="offloading",
    title="Offloading",
    lead="The share of images that no exit on the edge answers.",
    drawings=lambda found: one_of_each(found, "offloading", offloading),
    tables=("offloading",),
)
