"""The figures of what the paper reports: pure functions from a frame of estimates to a Matplotlib figure."""

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from early_exit.vocabulary import PRISTINE
from orchestrator.report.panels import (
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    Line,
    condition_name,
    differences,
    distortions,
    draw,
    grid,
    levels,
    name_levels,
    other_lines,
    over_levels,
    percent,
    policy_lines,
    unit,
    with_legend,
    with_pristine,
)
from orchestrator.results.layouts import DEPLOYED
from orchestrator.results.tables import in_order


def accuracy(frame: pd.DataFrame, p_tar: float) -> Figure:
    """Overall and edge accuracy against the level, a line per policy; the target as a line of dots."""
    figure, panels = grid(2, len(distortions(frame)))
    lines = policy_lines(frame["policy"])
    for row, quantity in zip(panels, ("overall_accuracy", "edge_accuracy"), strict=True):
        levels(row, frame[frame["quantity"] == quantity], lines)
        percent(row, "overall accuracy, %" if quantity == "overall_accuracy" else "accuracy on the edge, %")
    for panel in panels[1]:
        panel.axhline(100 * p_tar, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        panel.annotate(
            "p_tar", (1, 100 * p_tar), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
    return with_legend(figure, panels[0][0])


def offloading(frame: pd.DataFrame) -> Figure:
    """The share of images that leave the edge against the level, a line per policy."""
    figure, panels = grid(1, len(distortions(frame)), height=2.9)
    levels(panels[0], frame, policy_lines(frame["policy"]))
    percent(panels[0], "offloading probability, %")
    return with_legend(figure, panels[0][0])


def latency(frame: pd.DataFrame) -> Figure:
    """Mean end-to-end milliseconds against the level, a line per policy and a row per network."""
    return _by_network(frame, policy_lines(frame["policy"]), "policy")


def payload_latency(frame: pd.DataFrame) -> Figure:
    """The same of one policy, a line per form that the feature map is sent in."""
    return _by_network(frame, other_lines(frame["payload"]), "payload")


def _by_network(frame: pd.DataFrame, lines: dict[str, Line], by: str) -> Figure:
    networks = in_order(frame["network"])
    figure, panels = grid(len(networks), len(distortions(frame)))
    for row, network in zip(panels, networks, strict=True):
        levels(row, frame[frame["network"] == network], lines, by, scale=1000)
        row[0].set_ylabel(f"latency, {network}, ms")
        for panel in row:
            panel.set_ylim(bottom=0)
    return with_legend(figure, panels[0][0])


PARTS = {
    "classifier_seconds": ("classifier", PURPLE),
    "edge_seconds": ("edge", SKY),
    "link_seconds": ("link", GREY),
    "cloud_seconds": ("cloud", ORANGE),
}
TOTALS = {"p50_seconds": "_", "p95_seconds": "^"}
"""Of the whole way, and their markers."""


def where_time_goes(frame: pd.DataFrame) -> Figure:
    """Mean milliseconds by part, the standard model's bar beside the deployed system's; p50 and p95 as marks."""
    networks, width = in_order(frame["network"]), 0.36
    figure, panels = grid(len(networks), len(distortions(frame)))
    for row, network in zip(panels, networks, strict=True):
        for panel, kind in zip(row, distortions(frame), strict=True):
            there = with_pristine(frame[frame["network"] == network], kind)
            shown_at = sorted(there["level"].unique())
            for side, policy in ((-width / 1.8, PRISTINE), (width / 1.8, DEPLOYED)):
                of_policy = there[there["policy"] == policy].pivot(
                    index="level", columns="quantity", values="mean"
                )
                of_policy = 1000 * of_policy.reindex(index=shown_at, columns=[*PARTS, *TOTALS]).astype(float)
                places = [place + side for place in range(len(shown_at))]
                bottom = pd.Series(0.0, shown_at)
                for part, (label, colour) in PARTS.items():
                    panel.bar(places, of_policy[part], width, bottom, color=colour, label=label)
                    bottom = bottom + of_policy[part]
                for quantity, marker in TOTALS.items():
                    label = quantity.removesuffix("_seconds")
                    panel.plot(places, of_policy[quantity], marker, color=INK, markersize=5, label=label)
            panel.set_xticks(range(len(shown_at)), [str(level) for level in shown_at])
            panel.set_xlabel(unit(kind))
            panel.set_ylim(bottom=0)
            panel.label_outer()
        row[0].set_ylabel(f"latency, {network}, ms")
    return with_legend(figure, panels[0][0])


def tradeoff(frame: pd.DataFrame, kind: str, p_tar: float) -> Figure:
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


def published(frame: pd.DataFrame) -> Figure:
    """What the authors released beside ours, for the pristine and the matching expert."""
    quantities = {
        "overall_accuracy": "overall accuracy, %",
        "edge_exit_probability": "answered on the edge, %",
        "edge_accuracy": "accuracy on the edge, %",
    }
    kinds, policies = distortions(frame), policy_lines(frame["policy"])
    figure, panels = grid(len(quantities), len(kinds))
    for row, (quantity, label) in zip(panels, quantities.items(), strict=True):
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


def fidelities(frame: pd.DataFrame) -> Figure:
    """Overall accuracy of the pristine and of the matching expert, a line per fidelity."""
    lines = other_lines(frame["fidelity"])
    figure, panels = grid(2, len(distortions(frame)))
    overall, policies = frame[frame["quantity"] == "overall_accuracy"], policy_lines((PRISTINE, "oracle"))
    for row, (policy, line) in zip(panels, policies.items(), strict=True):
        levels(row, overall[overall["policy"] == policy], lines, by="fidelity")
        percent(row, f"overall accuracy, %\n{line.label}")
    return with_legend(figure, panels[0][0])


def ablation(frame: pd.DataFrame) -> Figure:
    """What each fidelity changes against corrected, in points, a line per fidelity."""
    quantities = {
        "overall_accuracy_gain": "overall accuracy",
        "edge_exit_gain": "edge exits",
        "edge_accuracy_gain": "accuracy on the edge",
    }
    lines = other_lines(frame["fidelity"])
    lines.pop("corrected", None)
    figure, panels = grid(len(quantities), len(distortions(frame)))
    for row, (quantity, label) in zip(panels, quantities.items(), strict=True):
        levels(row, frame[frame["quantity"] == quantity], lines, by="fidelity")
        row[0].set_ylabel(f"{label},\nmore than corrected, points")
        differences(row)
    return with_legend(figure, panels[0][0])
