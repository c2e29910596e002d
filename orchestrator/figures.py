"""The figures of a report: one per question, each a pure function from a frame of estimates to a Matplotlib figure.

A frame has one estimate per line: ``mean`` and ``margin`` (half the 95 % interval over seeds; missing for a
single seed) beside what it is of, in the views' units. Colours are Okabe and Ito's, which colour-blind readers
tell apart. Nothing here touches pyplot, so that nothing stays behind.
"""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from early_exit.distortion import distortion
from early_exit.vocabulary import EXITS, PRISTINE

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

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"),
    *("#56B4E9", "#F0E442"),
)

COLOURS = {PRISTINE: BLUE, "gaussian_blur": ORANGE, "gaussian_noise": GREEN}
MORE_COLOURS = (PURPLE, SKY, YELLOW)
"""Of experts; those without a colour of their own take turns."""


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


ASKING = {
    "oracle": Line("oracle: the true kind's expert", INK, "--", 1.0, ".", band=False),
    "classifier": Line("classifier: the seen kind's expert", VERMILION, ":", 1.2, "x"),
}
"""The oracle is one of the experts at every level: a thin line over a wide one, in that one's band."""

FIDELITY_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, YELLOW)


def kind_name(kind: str) -> str:
    """As people say it."""
    return kind if kind == PRISTINE else distortion(kind).name


def condition_name(kind: str, level: int) -> str:
    """As in ``blur 3``."""
    return f"{kind_name(kind)} {level}" if level else PRISTINE


def distorted(frame: pd.DataFrame) -> list[str]:
    """The kinds in a frame, each of which has a panel with pristine as its level 0; pristine where it is alone."""
    return sorted({*frame["kind"]} - {PRISTINE}) or [PRISTINE]


def in_training_order(experts: Iterable[str]) -> list[str]:
    """Each once, pristine first."""
    return sorted({*experts}, key=lambda expert: (expert != PRISTINE, expert))


def _policy_lines(policies: Iterable[str]) -> dict[str, Line]:
    """A line for each policy, experts first; the same colours in all figures of a run."""
    experts = in_training_order({*policies} - ASKING.keys())
    turns = itertools.cycle(MORE_COLOURS)
    colours = {expert: COLOURS.get(expert) or next(turns) for expert in experts}
    lines = {expert: Line(_expert_name(expert), colour, width=2.6) for expert, colour in colours.items()}
    return lines | ASKING


def _expert_name(expert: str) -> str:
    return f"{kind_name(expert)} expert"


def accuracy(frame: pd.DataFrame, p_tar: float) -> Figure:
    """Overall and edge accuracy against the level, a line per policy; the target as a line of dots."""
    kinds, lines = distorted(frame), _policy_lines(frame["policy"])
    figure, panels = _grid(2, len(kinds))
    for row, quantity in zip(panels, ("overall_accuracy", "edge_accuracy"), strict=True):
        _levels(row, kinds, frame[frame["quantity"] == quantity], lines)
        _percent(row, "overall accuracy, %" if quantity == "overall_accuracy" else "accuracy on the edge, %")
    for panel in panels[1]:
        panel.axhline(100 * p_tar, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        panel.annotate(
            "p_tar", (1, 100 * p_tar), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
    return _with_legend(figure, panels[0][0])


def offloading(frame: pd.DataFrame) -> Figure:
    """The share of pictures that leave the edge against the level, a line per policy."""
    kinds = distorted(frame)
    figure, panels = _grid(1, len(kinds), height=2.9)
    _levels(panels[0], kinds, frame, _policy_lines(frame["policy"]))
    _percent(panels[0], "offloading probability, %")
    return _with_legend(figure, panels[0][0])


def latency(frame: pd.DataFrame) -> Figure:
    """Mean end-to-end milliseconds against the level, a line per policy and a row per network."""
    networks = sorted(frame["profile"].unique())
    kinds, lines = distorted(frame), _policy_lines(frame["policy"])
    figure, panels = _grid(len(networks), len(kinds))
    for row, network in zip(panels, networks, strict=True):
        _levels(row, kinds, frame[frame["profile"] == network], lines, scale=1000)
        row[0].set_ylabel(f"{network}, ms")
        for panel in row:
            panel.set_ylim(bottom=0)
    return _with_legend(figure, panels[0][0])


def tradeoff(frame: pd.DataFrame, kind: str, p_tar: float) -> Figure:
    """Overall accuracy against offloading as p_tar goes from 0 to 1: a panel per level, a dot at the headline.

    ``frame`` has ``offloading`` (mean over seeds) beside ``mean`` and ``margin`` of the overall accuracy.
    """
    shown = _with_pristine(frame, kind)
    levels = sorted(shown["level"].unique())
    rows = -(-len(levels) // 3)
    figure, panels = _grid(rows, 3, height=2.2, sharex=True)
    flat = [panel for row in panels for panel in row]
    for panel, level in zip(flat, levels, strict=False):
        for policy, line in _policy_lines(shown["policy"]).items():
            curve = shown[(shown["level"] == level) & (shown["policy"] == policy)].sort_values("p_tar")
            _draw(panel, 100 * curve["offloading"], curve, replace(line, marker=""))
            here = curve[curve["p_tar"] == p_tar]
            panel.plot(100 * here["offloading"], 100 * here["mean"], "o", color=line.colour, markersize=5)
        panel.set_title(condition_name(kind, level))
        panel.set_xlim(-3, 103)
    for panel in flat[len(levels) :]:
        panel.set_visible(False)
    for row in panels:
        _percent(row, "overall accuracy, %")
    figure.supxlabel("offloading probability, %", fontsize=9)
    return _with_legend(figure, flat[0])


def published(frame: pd.DataFrame) -> Figure:
    """What the authors released beside ours, for the pristine and the matching expert."""
    quantities = {
        "overall_accuracy": "overall accuracy, %",
        "edge_exit_probability": "answered on the edge, %",
        "edge_accuracy": "accuracy on the edge, %",
    }
    kinds = distorted(frame)
    lines = _policy_lines((PRISTINE, *kinds))
    figure, panels = _grid(len(quantities), len(kinds))
    for row, (quantity, label) in zip(panels, quantities.items(), strict=True):
        for panel, kind in zip(row, kinds, strict=True):
            for policy in (PRISTINE, kind):
                ours = replace(lines[policy], width=1.8)
                theirs = replace(ours, label=f"{ours.label}, published", dashes="--", filled=False, width=1.2)
                of_policy = _with_pristine(frame[frame["policy"] == policy], kind)
                _over_levels(panel, of_policy[of_policy["quantity"] == f"published_{quantity}"], theirs)
                _over_levels(panel, of_policy[of_policy["quantity"] == quantity], ours)
        _name_levels(row, kinds, frame)
        _percent(row, label)
    return _with_legend(figure, *panels[0])


def fidelities(frame: pd.DataFrame) -> Figure:
    """Overall accuracy of the pristine and of the matching expert, a line per fidelity."""
    names = list(frame["fidelity"].unique())
    lines = {
        name: Line(name, FIDELITY_COLOURS[place % 7], width=1.4, marker="osv^D*P"[place % 7])
        for place, name in enumerate(names)
    }
    kinds, overall = distorted(frame), frame[frame["quantity"] == "overall_accuracy"]
    figure, panels = _grid(2, len(kinds))
    for row, policy in zip(panels, (PRISTINE, "oracle"), strict=True):
        _levels(row, kinds, overall[overall["policy"] == policy], lines, by="fidelity")
        _percent(row, f"overall accuracy, %\n{_policy_lines([PRISTINE])[policy].label}")
    return _with_legend(figure, panels[0][0])


def confusion(frame: pd.DataFrame) -> Figure:
    """The share of the test pictures of each kind and level that the classifier takes for each kind."""
    conditions = list(dict.fromkeys(zip(frame["kind"], frame["level"], strict=True)))
    figure = Figure(figsize=(0.62 * WIDTH, 0.7 + 0.27 * len(conditions)), layout="constrained")
    panel = figure.add_subplot()
    labels = list(dict.fromkeys(frame["seen"]))
    shares = frame.set_index(["kind", "level", "seen"])
    means = [[100 * shares["mean"][kind, level, seen] for seen in labels] for kind, level in conditions]
    panel.imshow(means, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, (kind, level) in enumerate(conditions):
        for column, seen in enumerate(labels):
            share, margin = means[row][column], 100 * shares["margin"][kind, level, seen]
            text = f"{share:.1f}" if pd.isna(margin) else f"{share:.1f} ± {margin:.1f}"
            colour = "white" if share > 55 else "black"
            panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    panel.set_xticks(range(len(labels)), [kind_name(seen) for seen in labels])
    panel.set_yticks(range(len(conditions)), [condition_name(*condition) for condition in conditions])
    panel.set_xlabel("seen as, % of the test images")
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    return figure


def reliability(bins: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Accuracy against confidence, a row per expert and a column per exit, before and after calibration."""
    experts = in_training_order(bins["expert"])
    figure, panels = _grid(len(experts), len(EXITS), height=1.9)
    lines = {
        "before": Line("before calibration", ORANGE, "--", 1.2, "s", filled=False),
        "after": Line("after calibration", BLUE, width=1.8),
    }
    for row, expert in zip(panels, experts, strict=True):
        for panel, number in zip(row, EXITS, strict=True):
            panel.plot([0, 100], [0, 100], color=INK, linewidth=0.7, linestyle=(0, (1, 3)))
            for when, line in lines.items():
                chosen = bins[(bins["expert"] == expert) & (bins["exit"] == number) & (bins["when"] == when)]
                if len(chosen):
                    _draw(panel, 100 * chosen["confidence"], chosen, line)
            own = errors[(errors["expert"] == expert) & (errors["exit"] == number)].sort_values(
                "when", ascending=False
            )
            text = " → ".join(f"{100 * error:.1f}" for error in own["mean"])
            panel.set_title(f"exit {number}: ECE {text} %", fontsize=8)
            panel.set(xlim=(-3, 103), ylim=(-3, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
        row[0].set_ylabel(f"{_expert_name(expert)}\naccuracy, %")
    figure.supxlabel("confidence, %", fontsize=9)
    return _with_legend(figure, panels[0][0])


def _grid(
    rows: int, columns: int, height: float = 2.4, *, sharex: Literal["col"] | bool = "col"
) -> tuple[Figure, list[list[Axes]]]:
    width = WIDTH * max(1.0, columns / 4)
    figure = Figure(figsize=(width, height * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey="row", sharex=sharex)
    return figure, [list(row) for row in panels]


def _levels(
    row: Sequence[Axes],
    kinds: Sequence[str],
    frame: pd.DataFrame,
    lines: dict[str, Line],
    by: str = "policy",
    scale: float = 100,
) -> None:
    """A panel per distortion: a line for each value of the column ``by``."""
    for panel, kind in zip(row, kinds, strict=True):
        for value, line in lines.items():
            _over_levels(panel, _with_pristine(frame[frame[by] == value], kind), line, scale)
    _name_levels(row, kinds, frame)


def _with_pristine(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The lines of ``kind`` and, as level 0 of it, of pristine pictures."""
    return frame[frame["kind"].isin((PRISTINE, kind))]


def _over_levels(panel: Axes, frame: pd.DataFrame, line: Line, scale: float = 100) -> None:
    ordered = frame.sort_values("level")
    _draw(panel, ordered["level"], ordered, line, scale)


def _draw(panel: Axes, x: "pd.Series[float]", frame: pd.DataFrame, line: Line, scale: float = 100) -> None:
    """Means as a line, intervals as a band around it where there are any."""
    mean, margin = scale * frame["mean"].astype(float), scale * frame["margin"].astype(float)
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
    if line.band and margin.notna().any():
        panel.fill_between(
            x.astype(float), mean - margin, mean + margin, color=line.colour, alpha=0.1, linewidth=0
        )


def _name_levels(row: Sequence[Axes], kinds: Sequence[str], frame: pd.DataFrame) -> None:
    for panel, kind in zip(row, kinds, strict=True):
        panel.set_xticks(sorted(_with_pristine(frame, kind)["level"].unique()))
        if kind != PRISTINE:
            panel.set_xlabel(textwrap.fill(distortion(kind).axis, 60 if len(kinds) < 3 else 24))
        panel.label_outer()


def _percent(row: Sequence[Axes], label: str) -> None:
    row[0].set_ylabel(label)
    for panel in row:
        panel.set_ylim(-3, 103)


def _with_legend(figure: Figure, *panels: Axes) -> Figure:
    handles: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=3, fontsize=8)
    return figure
