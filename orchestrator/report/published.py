"""What the paper's authors released, beside ours."""

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from early_exit.vocabulary import PRISTINE
from orchestrator.report.panels import (
    distortions,
    grid,
    name_levels,
    over_levels,
    percent,
    policy_lines,
    with_legend,
    with_pristine,
)
from orchestrator.report.question import Question, one_of_each

QUANTITIES = {
    "overall_accuracy": "overall accuracy, %",
    "edge_exit_probability": "answered on the edge, %",
    "edge_accuracy": "accuracy on the edge, %",
}


def published(frame: pd.DataFrame) -> Figure:
    """What the authors released beside ours, for the pristine and the matching expert."""
    kinds, policies = distortions(frame), policy_lines(frame["policy"])
    figure, panels = grid(len(QUANTITIES), len(kinds))
    for row, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for panel, kind in zip(row, kinds, strict=True):
            for policy in (policy for policy in (PRISTINE, kind) if policy in policies):
                ours = replace(policies[policy], width=1.8)
                theirs = replace(ours, label=f"{ours.label}, published", dashes="--", filled=False, width=1.2)
                of_policy = with_pristine(frame[frame["policy"] == policy], kind)
                over_levels(panel, of_policy[of_policy["quantity"] == f"published_{quantity}"], theirs)
                over_levels(panel, of_policy[of_policy["quantity"] == quantity], ours)
        name_levels(row, frame)
        percent(row, label)
    return with_legend(figure, *panels[0])


QUESTION = Question(
    place=120,
    name="paper-comparison",
    title="Published beside ours",
    lead="What the paper's authors released.",
    drawings=lambda found: one_of_each(found, "paper_comparison", published),
    tables=("paper_comparison",),
)
