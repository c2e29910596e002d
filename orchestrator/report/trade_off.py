"""What accuracy costs in offloading, as the target confidence varies."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd
from matplotlib.figure import Figure
from sqlalchemy import text
from sqlalchemy.orm import Session

from orchestrator.report.findings import Findings
from orchestrator.report.panels import (
    condition_name,
    distortions,
    draw,
    grid,
    kind_name,
    percent,
    policy_lines,
    with_every_kind,
    with_legend,
    with_pristine,
)
from orchestrator.report.question import Drawing, Question
from orchestrator.results.tables import estimate

SWEPT = """
SELECT fidelity, policy, kind, level, p_tar, overall_accuracy, offloading_probability
FROM trade_off WHERE run = :run
"""


def trade_off(frame: pd.DataFrame, kind: str, p_tar: float) -> Figure:
    """Overall accuracy against offloading as p_tar goes from 0 to 1: a panel per level, a dot at the headline.

    ``frame`` has ``offloading`` (mean over seeds) beside ``mean`` and ``ci95`` of the overall accuracy.
    """
    shown = with_pristine(frame, kind)
    there = sorted(shown["level"].unique())
    rows = -(-len(there) // 3)
    figure, panels = grid(rows, 3, height=2.2)
    flat = [panel for row in panels for panel in row]
    for panel, level in zip(flat, there, strict=False):
        for policy, line in policy_lines(shown["policy"]).items():
            curve = shown[(shown["level"] == level) & (shown["policy"] == policy)].sort_values("p_tar")
            draw(panel, 100 * curve["offloading"], curve, replace(line, marker=""))
            here = curve[curve["p_tar"] == p_tar]
            panel.plot(100 * here["offloading"], 100 * here["mean"], "o", color=line.colour, markersize=5)
        panel.set_title(condition_name(kind, level))
        panel.set_xlim(-3, 103)
    for panel in flat[len(there) :]:
        panel.set_visible(False)
    for row in panels:
        percent(row, "overall accuracy, %")
    figure.supxlabel("offloading probability, %", fontsize=9)
    return with_legend(figure, flat[0])


def _swept(session: Session, run_id: int) -> pd.DataFrame:
    """What ``trade_off`` draws, of every fidelity."""
    values: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for *key, accuracy, offloading in session.execute(text(SWEPT), {"run": run_id}):
        values.setdefault(tuple(key), []).append((accuracy, offloading))
    lines = []
    for group, of_seeds in values.items():
        accuracies, offloadings = zip(*of_seeds, strict=True)
        found = estimate(accuracies)
        offloading = sum(offloadings) / len(offloadings)
        lines.append((*group, offloading, found.mean, found.ci95))
    names = ["fidelity", "policy", "kind", "level", "p_tar", "offloading", "mean", "ci95"]
    return with_every_kind(pd.DataFrame(lines, columns=names))


def _drawings(found: Findings) -> Iterator[Drawing]:
    run, swept = found.run, _swept(found.session, found.run.run_id)
    for fidelity in run.fidelities:
        of_fidelity = swept[swept["fidelity"] == fidelity]
        there = (kind for kind in distortions(of_fidelity) if len(with_pristine(of_fidelity, kind)))
        for kind in there:
            what = f"Overall accuracy against offloading at 101 thresholds, {kind_name(kind)}"
            figure = partial(trade_off, of_fidelity, kind, run.p_tar)
            yield Drawing(f"trade-off-{kind}", figure, what).of(run, fidelity)


QUESTION = Question(
    place=40,
    name="trade-off",
    title="Accuracy against offloading",
    lead="As p_tar goes from 0 to 1, more images leave the edge; the dot is the run's p_tar.",
    drawings=_drawings,
)
