"""What the distortion classifier predicts, and what its mistakes cost the deployed system."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from early_exit.policies import CLASSIFIER
from orchestrator.report.findings import Findings
from orchestrator.report.heat_map import heat_map
from orchestrator.report.panels import (
    differences,
    distortions,
    grid,
    levels,
    other_lines,
    policy_lines,
    with_every_kind,
    with_legend,
)
from orchestrator.report.question import Drawing, Question, file_name, one_of_each

COSTS = {"accuracy_cost": "accuracy lost, points", "offloading_cost": "offloaded more, points"}


def confusion(frame: pd.DataFrame) -> Figure:
    """The share of the test images of each kind and level that the classifier takes for each kind."""
    return heat_map(frame, "predicted", "predicted, % of the test images")


def classifier_cost(of_answers: pd.DataFrame, of_time: pd.DataFrame) -> Figure:
    """What asking the classifier costs against knowing the kind: accuracy, offloading, and time by network."""
    frame = with_every_kind(pd.concat([of_answers, of_time]))
    figure, panels = grid(len(COSTS) + 1, len(distortions(frame)), height=2.0)
    line = policy_lines([CLASSIFIER])
    for row, (quantity, label) in zip(panels, COSTS.items(), strict=False):
        cost = frame[frame["quantity"] == quantity].assign(policy=CLASSIFIER)
        levels(row, cost, line)
        row[0].set_ylabel(label)
    if len(of_time):
        longer = frame[frame["quantity"] == "latency_cost"]
        levels(panels[-1], longer, other_lines(longer["network"]), by="network", scale=1000)
    panels[-1][0].set_ylabel("longer, ms")
    for row in panels:
        differences(row)
    return with_legend(figure, panels[0][0], panels[-1][0])


def _drawings(found: Findings) -> Iterator[Drawing]:
    yield from one_of_each(found, "classifier_confusion", confusion)
    for table in found.of("classifier_cost"):
        costs = (found.frame(name, table.fidelity) for name in (table.name, "classifier_latency_cost"))
        what = f"What asking the classifier costs against knowing the kind at p_tar {table.p_tar:g}"
        drawing = Drawing(file_name(table.name), partial(classifier_cost, *costs), what)
        yield drawing.of(found.run, table.fidelity, table.note)


QUESTION = Question(
    place=50,
    name="classifier-confusion",
    title="The deployed system, not the oracle",
    lead="Nobody tells a real system the distortion: what its classifier predicts, and what its mistakes cost.",
    drawings=_drawings,
    tables=("classifier_confusion", "classifier_cost", "classifier_latency_cost"),
)
