"""How often a batch of images is right less often than it should be."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.findings import Findings
from orchestrator.report.panels import (
    distortions,
    grid,
    kind_name,
    levels,
    name_conditions,
    over_targets,
    percent,
    policy_lines,
    shown_levels,
    with_legend,
)
from orchestrator.report.question import Drawing, Question

OUTAGES = {"edge_outage": "outage on the edge, %", "overall_outage": "overall outage, %"}


def outage(frame: pd.DataFrame) -> Figure:
    """Outage probability on the edge and overall against the level, a line per policy."""
    figure, panels = grid(len(OUTAGES), len(distortions(frame)))
    lines = policy_lines(frame["policy"])
    for row, (quantity, label) in zip(panels, OUTAGES.items(), strict=True):
        levels(row, frame[frame["quantity"] == quantity], lines)
        percent(row, label)
    return with_legend(figure, panels[0][0])


def outage_by_target(frame: pd.DataFrame, kind: str) -> Figure:
    """The same against p_tar, on pristine images and at the middle and the strongest level of ``kind``."""
    shown = shown_levels(frame, kind)
    figure, panels = grid(len(OUTAGES), len(shown))
    for row, (quantity, label) in zip(panels, OUTAGES.items(), strict=True):
        over_targets(row, frame[frame["quantity"] == quantity], shown, "p_tar")
        percent(row, label)
    name_conditions(panels[0], shown)
    figure.supxlabel("p_tar", fontsize=9)
    return with_legend(figure, panels[0][0])


def _drawings(found: Findings) -> Iterator[Drawing]:
    for table in found.of("outage"):
        frame, curve = (read("outage", table.fidelity) for read in (found.frame, found.curve))
        drawings = [Drawing("outage", partial(outage, frame), table.title)]
        for kind in distortions(curve):
            what = f"Outage probability against p_tar, {kind_name(kind)}"
            drawings.append(Drawing(f"outage-{kind}", partial(outage_by_target, curve, kind), what))
        yield from (drawing.of(found.run, table.fidelity, table.note) for drawing in drawings)


QUESTION = Question(
    place=90,
    name="outage",
    title="Inference outage",
    lead="How often a batch of images is right less often than p_tar.",
    drawings=_drawings,
    tables=("outage",),
)
