"""What the form in which a feature map is sent costs and saves."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.report.findings import Findings
from orchestrator.report.panels import (
    INK,
    WIDTH,
    by_network,
    condition_name,
    conditions,
    other_lines,
    percent,
    with_legend,
)
from orchestrator.report.question import Drawing, Question, one_of_each


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


def payload_latency(frame: pd.DataFrame) -> Figure:
    """Mean end-to-end milliseconds against the level, a line per payload and a row per network."""
    return by_network(frame, other_lines(frame["payload"]), "payload")


def _drawings(found: Findings) -> Iterator[Drawing]:
    yield from one_of_each(found, "payload_accuracy", payload_accuracy)
    yield from one_of_each(found, "payload_latency", payload_latency)


QUESTION = Question(
    place=70,
    name="payload-accuracy",
    title="Payloads",
    lead="What the form in which a feature map is sent costs in accuracy, and saves in time.",
    drawings=_drawings,
    tables=("payload_accuracy", "payload_latency"),
)
