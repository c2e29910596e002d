"""A figure of percentages: conditions down, anything across."""

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.panels import condition_name, conditions, kind_name
from orchestrator.results.tables import in_order


def heat_map(frame: pd.DataFrame, column: str, label: str) -> Figure:
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
