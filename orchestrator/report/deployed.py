"""The figures of the deployed system, whose experts are chosen by a classifier that errs."""

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.panels import (
    condition_name,
    conditions,
    differences,
    distortions,
    grid,
    kind_name,
    levels,
    other_lines,
    policy_lines,
    with_every_kind,
    with_legend,
)
from orchestrator.results.tables import in_order

COSTS = {"accuracy_cost": "accuracy lost, points", "offloading_cost": "offloaded more, points"}


def confusion(frame: pd.DataFrame) -> Figure:
    """The share of the test images of each kind and level that the classifier takes for each kind."""
    return _heat_map(frame, "predicted", "predicted, % of the test images")


def cross_expert(frame: pd.DataFrame) -> Figure:
    """Overall accuracy of every expert on every kind and level."""
    return _heat_map(frame, "policy", "expert; overall accuracy, %")


def classifier_cost(of_answers: pd.DataFrame, of_time: pd.DataFrame) -> Figure:
    """What asking the classifier costs against knowing the kind: accuracy, offloading, and time by network."""
    frame = with_every_kind(pd.concat([of_answers, of_time]))
    figure, panels = grid(len(COSTS) + 1, len(distortions(frame)), height=2.0)
    line = policy_lines(["classifier"])
    for row, (quantity, label) in zip(panels, COSTS.items(), strict=False):
        cost = frame[frame["quantity"] == quantity].assign(policy="classifier")
        levels(row, cost, line)
        row[0].set_ylabel(label)
    if len(of_time):
        longer = frame[frame["quantity"] == "latency_cost"]
        levels(panels[-1], longer, other_lines(longer["network"]), by="network", scale=1000)
    panels[-1][0].set_ylabel("longer, ms")
    for row in panels:
        differences(row)
    return with_legend(figure, panels[0][0], panels[-1][0])


def _heat_map(frame: pd.DataFrame, column: str, label: str) -> Figure:
    """A row per condition and a column per value of ``column``, each cell with its percentage."""
    shown, values = conditions(frame), in_order(frame[column])
    width = 1.6 + max(1.2 * len(values), 2.0)
    figure = Figure(figsize=(width, 0.7 + 0.27 * len(shown)), layout="constrained")
    panel = figure.add_subplot()
    every = pd.MultiIndex.from_tuples((*condition, value) for condition in shown for value in values)
    cells = 100 * frame.astype({"kind": str}).set_index(["kind", "level", column])[["mean", "ci95"]]
    means, intervals = (
        cells.reindex(every)[name].to_numpy().reshape(len(shown), len(values)) for name in ("mean", "ci95")
    )
    panel.imshow(means, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row in range(len(shown)):
        for place in range(len(values)):
            share, ci95 = means[row, place], intervals[row, place]
            text = "–" if pd.isna(share) else f"{share:.1f}" + ("" if pd.isna(ci95) else f" ± {ci95:.1f}")
            colour = "white" if share > 55 else "black"
            panel.text(place, row, text, ha="center", va="center", color=colour, fontsize=8)
    panel.set_xticks(range(len(values)), [kind_name(str(value)) for value in values])
    panel.set_yticks(range(len(shown)), [condition_name(*condition) for condition in shown])
    panel.set_xlabel(label)
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    return figure
