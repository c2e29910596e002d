"""What all figures share: names and looks of policies and kinds, a panel per distortion, lines over levels.

A frame has one estimate per row: ``mean`` and ``ci95`` (half the 95 % interval over seeds; missing for a
single seed) in the unit of its view, beside columns that say what is estimated. The colours are Okabe and
Ito's and a grey, which colour-blind readers can tell apart. Nothing here uses pyplot, which would keep every
figure in memory.
"""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from early_exit.distortion import distortion, known
from early_exit.policies import CLASSIFIER, CLOUD_ONLY, EDGE_ONLY, GENERALIST, ORACLE, kind_of_total
from early_exit.vocabulary import PRISTINE
from orchestrator.results.tables import in_order

INK, PAPER = "#1a1a1b", "#fffffe"
"""Text and background: colours that nothing else has, so that a page can put its own in their place."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "grid.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
"""Matplotlib's settings for these figures, to be in force from making a figure to saving it."""

WIDTH = 7.2
"""Inches."""

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"),
    *("#56B4E9", "#7A7A7A"),
)


def kind_name(kind: str) -> str:
    """The name of a kind, as people say it."""
    return kind if kind == PRISTINE or kind not in known() else distortion(kind).name


def unit(kind: str) -> str:
    """What the levels of a kind are, as the label of an axis; empty for pristine."""
    return "" if kind == PRISTINE else distortion(kind).axis


def condition_name(kind: str, level: int) -> str:
    """A kind and its level, as in ``blur 3``."""
    return f"{kind_name(kind)} {level}" if level else PRISTINE


@dataclass(frozen=True)
class Line:
    """How a line looks."""

    label: str
    colour: str
    dashes: str = "-"
    width: float = 1.6
    marker: str = "o"
    filled: bool = True
    band: bool = True


POLICY_LINES = {
    PRISTINE: Line("pristine expert", BLUE, width=2.6),
    "gaussian_blur": Line("blur expert", ORANGE, width=2.6),
    "gaussian_noise": Line("noise expert", GREEN, width=2.6),
    ORACLE: Line("oracle: the true kind's expert", INK, "--", 1.0, ".", band=False),
    CLASSIFIER: Line("classifier: the predicted kind's expert", VERMILION, ":", 1.2, "x"),
    GENERALIST: Line("generalist: all distortions at once", PURPLE, "-.", 1.4, "s"),
    EDGE_ONLY: Line("edge only", VERMILION, "-.", 1.4, "v"),
    CLOUD_ONLY: Line("cloud only", GREY, "-.", 1.4, "D"),
}
"""The oracle equals one of the experts at every level: its thin line lies on that expert's wide one and has no
band of its own."""

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY, INK)
MARKERS = "osv^D*PX"
"""Of the lines of anything but policies."""


def policy_lines(policies: Iterable[object]) -> dict[str, Line]:
    """Of each policy, in order; the same for the same policy in every figure."""
    spare = itertools.cycle((PURPLE, SKY, GREY, INK))
    lines: dict[str, Line] = {}
    for name in map(str, in_order(map(str, policies))):
        kind = kind_of_total(name) or name
        line = (
            lines.get(kind)
            or POLICY_LINES.get(kind)
            or Line(f"{kind_name(kind)} expert", next(spare), width=2.6)
        )
        all_layers = replace(
            line, label=f"{line.label}, all layers trained", dashes="-.", width=1.2, marker="^"
        )
        lines[name] = line if kind == name else all_layers
    return lines


def other_lines(names: Iterable[object]) -> dict[str, Line]:
    """How anything else looks, by name; no more than the first eight have a line."""
    # strict among the looks, so that none is without a marker
    looks = zip(COLOURS, MARKERS, strict=True)
    return {
        str(name): Line(str(name), colour, width=1.4, marker=marker)
        for name, (colour, marker) in zip(in_order(map(str, names)), looks, strict=False)
    }


def with_every_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame, every selection of which remembers all kinds: one without results has an empty panel."""
    if "kind" not in frame:
        return frame
    kinds = in_order(frame["kind"].astype(str))
    return frame.assign(kind=pd.Categorical(frame["kind"].astype(str), kinds))


def distortions(frame: pd.DataFrame) -> list[str]:
    """The kinds of ``with_every_kind`` that have a panel: pristine is level 0 of all others, or alone."""
    return [str(kind) for kind in frame["kind"].cat.categories if kind != PRISTINE] or [PRISTINE]


def conditions(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Every (kind, level) of a frame, pristine first."""
    there = set(zip(frame["kind"], frame["level"], strict=True))
    kinds = in_order(frame["kind"])
    return sorted(there, key=lambda condition: (kinds.index(condition[0]), condition[1]))


def shown_levels(frame: pd.DataFrame, kind: str) -> list[tuple[str, int]]:
    """Pristine, and the middle and the strongest level of ``kind``."""
    levels = sorted(set(frame.loc[frame["kind"] == kind, "level"]))
    return [
        (PRISTINE, 0),
        *((kind, int(level)) for level in dict.fromkeys((levels[len(levels) // 2], levels[-1]))),
    ]


def grid(rows: int, columns: int, height: float = 2.4) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its rows of panels, each ``height`` inches high; rows share a y axis and columns an x axis."""
    figure = Figure(figsize=(WIDTH * max(1, columns / 4), height * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey="row", sharex="col")
    return figure, [list(row) for row in panels]


def levels(
    row: Sequence[Axes], frame: pd.DataFrame, lines: dict[str, Line], by: str = "policy", scale: float = 100
) -> None:
    """A panel per distortion, in it a line for each value of the column ``by``."""
    for panel, kind in zip(row, distortions(frame), strict=True):
        for value, line in lines.items():
            over_levels(panel, with_pristine(frame[frame[by] == value], kind), line, scale)
    name_levels(row, frame)


def with_pristine(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of ``kind`` and, as its level 0, those of pristine images."""
    return frame[frame["kind"].isin((PRISTINE, kind))]


def over_levels(panel: Axes, frame: pd.DataFrame, line: Line, scale: float = 100) -> None:
    """One line against the level."""
    ordered = frame.sort_values("level")
    draw(panel, ordered["level"], ordered, line, scale)


def draw(panel: Axes, x: "pd.Series[float]", frame: pd.DataFrame, line: Line, scale: float = 100) -> None:
    """Means as a line, and the intervals, where there are any, as a band around it."""
    mean, ci95 = scale * frame["mean"].astype(float), scale * frame["ci95"].astype(float)
    panel.plot(
        x,
        mean,
        line.dashes,
        color=line.colour,
        linewidth=line.width,
        marker=line.marker,
        markersize=4,
        markerfacecolor=line.colour if line.filled else "none",
        label=line.label,
    )
    if line.band and ci95.notna().any():
        panel.fill_between(
            x.astype(float), mean - ci95, mean + ci95, color=line.colour, alpha=0.1, linewidth=0
        )


def by_network(frame: pd.DataFrame, lines: dict[str, Line], by: str) -> Figure:
    """Milliseconds against the level, a row per network and a line for each value of the column ``by``."""
    networks = in_order(frame["network"])
    figure, panels = grid(len(networks), len(distortions(frame)))
    for row, network in zip(panels, networks, strict=True):
        levels(row, frame[frame["network"] == network], lines, by, scale=1000)
        row[0].set_ylabel(f"latency, {network}, ms")
        for panel in row:
            panel.set_ylim(bottom=0)
    return with_legend(figure, panels[0][0])


def over_targets(row: Sequence[Axes], frame: pd.DataFrame, shown: list[tuple[str, int]], x: str) -> None:
    """A panel per condition of ``shown``, in it a line per policy over the column ``x``."""
    for panel, (kind, level) in zip(row, shown, strict=True):
        there = frame[(frame["kind"] == kind) & (frame["level"] == level)]
        for policy, line in policy_lines(frame["policy"]).items():
            curve = there[there["policy"] == policy].sort_values(x)
            draw(panel, curve[x], curve, replace(line, marker=""))


def name_conditions(row: Sequence[Axes], shown: list[tuple[str, int]]) -> None:
    """A title above each panel of ``over_targets``."""
    for panel, condition in zip(row, shown, strict=True):
        panel.set_title(condition_name(*condition))


def name_levels(row: Sequence[Axes], frame: pd.DataFrame) -> None:
    """Ticks at the levels there are, and the unit on the lowest row."""
    for panel, kind in zip(row, distortions(frame), strict=True):
        panel.set_xticks(sorted(with_pristine(frame, kind)["level"].unique()))
        panel.set_xlabel(textwrap.fill(unit(kind), 60 if len(row) < 3 else 24))
        panel.label_outer()


def percent(row: Sequence[Axes], label: str) -> None:
    """The label of a row, whose y axis goes from 0 to 100 %."""
    row[0].set_ylabel(label)
    for panel in row:
        panel.set_ylim(-3, 103)


def differences(row: Sequence[Axes]) -> None:
    """A line at 0, and a y axis of at least one unit on either side of it and of about 100 at most."""
    for panel in row:
        panel.axhline(0, color=INK, linewidth=0.8)
    low, high = row[0].get_ylim()
    row[0].set_ylim(max(min(low, -1), -103), min(max(high, 1), 103))


def with_legend(figure: Figure, *panels: Axes) -> Figure:
    """The figure under one legend of all that is drawn in ``panels``."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=3, fontsize=8)
    return figure
