"""How often a batch of images misses its target accuracy or its target time."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.findings import Findings
from orchestrator.report.panels import (
    distortions,
    grid,
    kind_name,
    name_conditions,
    over_targets,
    percent,
    shown_levels,
    with_legend,
)
from orchestrator.report.question import Drawing, Question
from orchestrator.results.tables import in_order


def deadlines(frame: pd.DataFrame, kind: str) -> Figure:
    """Missed-deadline probability against t_tar, a row per network.

    On pristine images, and at the middle and the strongest level of ``kind``.
    """
    networks, shown = in_order(frame["network"]), shown_levels(frame, kind)
    figure, panels = grid(len(networks), len(shown), height=2.0)
    for row, network in zip(panels, networks, strict=True):
        over_targets(row, frame[frame["network"] == network], shown, "t_tar_seconds")
        percent(row, f"missed, {network}, %")
    name_conditions(panels[0], shown)
    figure.supxlabel("t_tar, seconds", fontsize=9)
    return with_legend(figure, panels[0][0])


def _drawings(found: Findings) -> Iterator[Drawing]:
    for table in found.of("deadlines"):
        curve = found.curve("deadlines", table.fidelity)
        for kind in distortions(curve):
            what = f"Missed-deadline probability against t_tar at p_tar {table.p_tar:g}, {kind_name(kind)}"
            drawing = Drawing(f"deadlines-{kind}", partial(deadlines, curve, kind), what)
            yield drawing.of(found.run, table.fidelity, table.note)


QUESTION = Question(
    place=100,
    name="deadlines",
    title="Missed deadlines",
    lead="How often a batch is right less often than p_tar, or its mean time is above t_tar.",
    drawings=_drawings,
    tables=("deadlines",),
)
