"""The figures of what goes beyond the paper: calibration, outages, missed deadlines, payloads."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from early_exit.distortion import expert_of
from early_exit.vocabulary import PRISTINE
from orchestrator.report.panels import (
    BLUE,
    INK,
    ORANGE,
    WIDTH,
    Line,
    condition_name,
    conditions,
    distortions,
    draw,
    grid,
    levels,
    name_levels,
    other_lines,
    over_levels,
    percent,
    policy_lines,
    shown_levels,
    with_legend,
    with_pristine,
)
from orchestrator.results.tables import in_order

BEFORE_AND_AFTER = (
    Line("before calibration", ORANGE, "--", 1.2, "s", filled=False),
    Line("after calibration", BLUE, width=1.8),
)


def calibration(frame: pd.DataFrame) -> Figure:
    """Expected calibration error against the level, a row per exit: the pristine and the matching expert."""
    exits, kinds, experts = in_order(frame["exit"]), distortions(frame), policy_lines(frame["expert"])
    figure, panels = grid(len(exits), len(kinds), height=1.9)
    for row, number in zip(panels, exits, strict=True):
        of_exit = frame[frame["exit"] == number]
        for panel, kind in zip(row, kinds, strict=True):
            for expert in (e for e in dict.fromkeys((PRISTINE, expert_of(kind))) if e in experts):
                after = replace(
                    experts[expert], label=f"{experts[expert].label}, after calibration", width=1.8
                )
                before = replace(
                    after, label=f"{experts[expert].label}, before", dashes="--", filled=False, width=1.2
                )
                of_expert = with_pristine(of_exit[of_exit["expert"] == expert], kind)
                over_levels(panel, of_expert[of_expert["quantity"] == "ece_before"], before)
                over_levels(panel, of_expert[of_expert["quantity"] == "ece_after"], after)
            panel.set_ylim(0, min(panel.get_ylim()[1], 103))
        name_levels(row, frame)
        row[0].set_ylabel(f"ECE at exit {number}, points")
    return with_legend(figure, *panels[0])


def reliability(bins: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Accuracy against confidence, a row per expert and a column per exit, before and after calibration."""
    experts, exits = in_order(bins["expert"]), in_order(bins["exit"])
    lines = policy_lines(experts)
    figure, panels = grid(len(experts), len(exits), height=1.9)
    for row, expert in zip(panels, experts, strict=True):
        for panel, number in zip(row, exits, strict=True):
            panel.plot([0, 100], [0, 100], color=INK, linewidth=0.7, linestyle=(0, (1, 3)))
            for calibrated, line in enumerate(BEFORE_AND_AFTER):
                of_exit = (bins["expert"] == expert) & (bins["exit"] == number)
                there = bins[of_exit & (bins["calibrated"] == calibrated)].sort_values("bin")
                confidence = 100 * there.loc[there["quantity"] == "mean_confidence", "mean"]
                draw(panel, confidence, there[there["quantity"] == "accuracy"], line)
            own = errors[(errors["expert"] == expert) & (errors["exit"] == number)].sort_values("calibrated")
            text = " → ".join(f"{100 * error:.1f}" for error in own["mean"])
            panel.set_title(f"exit {number}: ECE {text}", fontsize=8)
            panel.set(xlim=(-3, 103), ylim=(-3, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
        row[0].set_ylabel(f"{lines[str(expert)].label}\naccuracy, %")
    figure.supxlabel("confidence, %", fontsize=9)
    return with_legend(figure, panels[0][0])


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
        _curves(row, frame[frame["quantity"] == quantity], shown, "p_tar")
        percent(row, label)
    _name_conditions(panels, shown)
    figure.supxlabel("p_tar", fontsize=9)
    return with_legend(figure, panels[0][0])


def deadlines(frame: pd.DataFrame, kind: str) -> Figure:
    """Missed-deadline probability against t_tar, a row per network, at the same conditions."""
    networks, shown = in_order(frame["network"]), shown_levels(frame, kind)
    figure, panels = grid(len(networks), len(shown), height=2.0)
    for row, network in zip(panels, networks, strict=True):
        _curves(row, frame[frame["network"] == network], shown, "t_tar_seconds")
        percent(row, f"missed, {network}, %")
    _name_conditions(panels, shown)
    figure.supxlabel("t_tar, seconds", fontsize=9)
    return with_legend(figure, panels[0][0])


def _curves(row: list[Axes], frame: pd.DataFrame, shown: list[tuple[str, int]], x: str) -> None:
    """A panel per condition, in it a line per policy over the column ``x``."""
    for panel, (kind, level) in zip(row, shown, strict=True):
        there = frame[(frame["kind"] == kind) & (frame["level"] == level)]
        for policy, line in policy_lines(frame["policy"]).items():
            curve = there[there["policy"] == policy].sort_values(x)
            draw(panel, curve[x], curve, replace(line, marker=""))


def _name_conditions(panels: list[list[Axes]], shown: list[tuple[str, int]]) -> None:
    for panel, condition in zip(panels[0], shown, strict=True):
        panel.set_title(condition_name(*condition))


def payload_accuracy(frame: pd.DataFrame) -> Figure:
    """Accuracy of the final exit, a group of bars per expert and condition and a bar per payload."""
    accuracy = frame[frame["quantity"] == "final_accuracy"]
    payloads, shown = other_lines(accuracy["payload"]), conditions(accuracy)
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    panel, width = figure.add_subplot(), 0.8 / len(payloads)
    for number, (payload, line) in enumerate(payloads.items()):
        of_payload = accuracy[accuracy["payload"] == payload].astype({"kind": str})
        of_payload = of_payload.set_index(["kind", "level"]).reindex(pd.MultiIndex.from_tuples(shown))
        places = [place + width * (number - (len(payloads) - 1) / 2) for place in range(len(shown))]
        panel.bar(places, 100 * of_payload["mean"], 0.9 * width, color=line.colour, label=payload)
        panel.errorbar(places, 100 * of_payload["mean"], 100 * of_payload["ci95"], fmt="none", ecolor=INK)
    panel.set_xticks(range(len(shown)), [condition_name(*condition) for condition in shown])
    percent([panel], "accuracy of the final exit, %")
    return with_legend(figure, panel)
