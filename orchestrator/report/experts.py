"""How every expert does on every kind and level."""

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.heat_map import heat_map
from orchestrator.report.question import Question, one_of_each


def cross_expert(frame: pd.DataFrame) -> Figure:
    """Overall accuracy of every expert on every kind and level."""
    return heat_map(frame, "policy", "expert; overall accuracy, %")


QUESTION = Question(
    place=60,
    name="cross-expert",
    title="Every expert everywhere",
    lead="The price of asking the wrong one.",
    drawings=lambda found: one_of_each(found, "cross_expert", cross_expert),
    tables=("cross_expert",),
)
