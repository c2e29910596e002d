"""How long an answer takes, and where the time goes."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from early_exit.policies import CLASSIFIER
from early_exit.vocabulary import PRISTINE
from orchestrator.report.findings import Findings
from orchestrator.report.panels import (
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    by_network,
    distortions,
    grid,
    policy_lines,
    unit,
    with_legend,
    with_pristine,
)
from orchestrator.report.question import Drawing, Question, one_of_each
from orchestrator.results.tables import in_order

PARTS = {
    "classifier_seconds": ("classifier", PURPLE),
    "edge_seconds": ("edge", SKY),
    "link_seconds": ("link", GREY),
    "cloud_seconds": ("cloud", ORANGE),
}
TOTALS = {"p50_seconds": "_", "p95_seconds": "^"}
"""Of the time end to end, and their markers."""
BAR = 0.36
"""Width of a bar; a level is 1 wide."""


def latency(frame: pd.DataFrame) -> Figure:
    """Mean end-to-end milliseconds against the level, a line per policy and a row per network."""
    return by_network(frame, policy_lines(frame["policy"]), "policy")


def where_time_goes(frame: pd.DataFrame) -> Figure:
    """Mean milliseconds by part, the standard model's bar beside the deployed system's; p50 and p95 as marks."""
    networks = in_order(frame["network"])
    figure, panels = grid(len(networks), len(distortions(frame)))
    for row, network in zip(panels, networks, strict=True):
        for panel, kind in zip(row, distortions(frame), strict=True):
            there = with_pristine(frame[frame["network"] == network], kind)
            shown_at = sorted(there["level"].unique())
            for side, policy in ((-BAR / 1.8, PRISTINE), (BAR / 1.8, CLASSIFIER)):
                of_policy = there[there["policy"] == policy].pivot(
                    index="level", columns="quantity", values="mean"
                )
                of_policy = 1000 * of_policy.reindex(index=shown_at, columns=[*PARTS, *TOTALS]).astype(float)
                _stack(panel, [place + side for place in range(len(shown_at))], of_policy)
            panel.set_xticks(range(len(shown_at)), [str(level) for level in shown_at])
            panel.set_xlabel(unit(kind))
            panel.set_ylim(bottom=0)
            panel.label_outer()
        row[0].set_ylabel(f"latency, {network}, ms")
    return with_legend(figure, panels[0][0])


def _stack(panel: Axes, places: list[float], milliseconds: pd.DataFrame) -> None:
    """A bar per level of the parts, one on top of the other, and the marks of the totals."""
    bottom = pd.Series(0.0, milliseconds.index)
    for part, (label, colour) in PARTS.items():
        panel.bar(places, milliseconds[part], BAR, bottom, color=colour, label=label)
        bottom = bottom + milliseconds[part]
    for quantity, marker in TOTALS.items():
        label = quantity.removesuffix("_seconds")
        panel.plot(places, milliseconds[quantity], marker, color=INK, markersize=5, label=label)


def _drawings(found: Findings) -> Iterator[Drawing]:
    yield from one_of_each(found, "latency", latency)
    sides = "; left the pristine expert alone, right the classifier and the expert it asks"
    yield from one_of_each(found, "latency_parts", where_time_goes, sides)


QUESTION = Question(
    place=30,
    name="latency",
    title="Latency",
    lead="From the image on the edge to its answer, by network, and the parts of it.",
    drawings=_drawings,
    tables=("latency", "latency_parts"),
)
