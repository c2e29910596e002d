"""Which tables a run's results are shown in: what a line is, what a cell is, and of which view."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from early_exit import outage
from early_exit.exits import THRESHOLDS
from early_exit.policies import BORROWING, CLASSIFIER, ORACLE
from orchestrator.errors import UsageError, nearest

Row = dict[str, Any]

PUBLISHED_AT = (0.7, 0.8, 0.9)
"""Thresholds with published figures."""

SHOWN_DEADLINES = (0.1, 0.2, 0.5, 1.0, 1.5, 2.0)
"""Seconds; the figures show all."""


@dataclass(frozen=True)
class Quantity:
    """A column of a view, and how people see it: times ``scale``, one decimal."""

    column: str
    scale: float
    heading: str = ""
    ours: bool = True
    """Otherwise it is the same in every seed and has no interval."""


@dataclass(frozen=True)
class Layout:
    """How a view becomes a table: one line per ``lines``, in it one cell per value of ``across``, or per quantity.

    With ``fidelity`` among its lines there is one table for all fidelities, otherwise one for each.
    """

    view: str
    title: str
    """``{at}`` stands for the threshold and, where there are several, the fidelity."""
    lines: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    across: str | None = None
    heading: Callable[[Any], str] = str
    """The heading of the column of a value of ``across``."""
    thresholds: tuple[float, ...] = THRESHOLDS
    """Those that the view has; a run whose own is not among them is shown at 0.8. () shows all in one table."""
    of_payload: bool = False
    """Only the run's own payload is shown."""
    keeps: Callable[[Row], bool] = lambda _: True
    """Whether a row of the view belongs to the table."""
    note: str = ""
    """What a reader must know, for the caption."""
    name: str = ""
    """If a view has several tables."""

    @property
    def table(self) -> str:
        """Its name among all tables."""
        return self.name or self.view


OVERALL = Quantity("overall_accuracy", 100)
ON_THE_EDGE = Quantity("edge_accuracy", 100)
OFFLOADED = Quantity("offloading_probability", 100)
MILLISECONDS = Quantity("mean_seconds", 1000)


def _when(calibrated: int) -> str:
    return ("before", "after")[calibrated]


LAYOUTS = (
    Layout(
        "accuracy",
        "Accuracy{at}: overall / on the edge, %",
        ("kind", "level"),
        (OVERALL, ON_THE_EDGE),
        "policy",
    ),
    Layout("offloading", "Offloading probability{at}, %", ("kind", "level"), (OFFLOADED,), "policy"),
    Layout(
        "latency",
        "End-to-end latency{at}: mean over the test images, ms",
        ("network", "kind", "level"),
        (MILLISECONDS,),
        "policy",
        of_payload=True,
    ),
    Layout(
        "latency",
        "Where time goes{at}: end to end, and the means of its parts, ms",
        ("network", "policy", "kind", "level"),
        (
            Quantity("mean_seconds", 1000, "mean"),
            Quantity("p50_seconds", 1000, "p50"),
            Quantity("p95_seconds", 1000, "p95"),
            Quantity("classifier_seconds", 1000, "classifier"),
            Quantity("edge_seconds", 1000, "edge"),
            Quantity("link_seconds", 1000, "link"),
            Quantity("cloud_seconds", 1000, "cloud"),
        ),
        of_payload=True,
        name="latency_parts",
    ),
    Layout(
        "classifier_confusion",
        "What the classifier predicts{at}, % of the test images",
        ("kind", "level"),
        (Quantity("share", 100),),
        "predicted",
        thresholds=(),
    ),
    Layout(
        "classifier_cost",
        "What asking the classifier costs against knowing the kind{at}, % and points",
        ("kind", "level"),
        (
            Quantity("oracle_accuracy", 100, "accuracy of oracle"),
            Quantity("classifier_accuracy", 100, "of classifier"),
            Quantity("accuracy_cost", 100, "accuracy lost"),
            Quantity("offloading_cost", 100, "offloaded more"),
        ),
    ),
    Layout(
        "classifier_latency_cost",
        "What asking the classifier costs in time{at}, ms",
        ("network", "kind", "level"),
        (
            Quantity("oracle_mean_seconds", 1000, "latency of oracle"),
            Quantity("classifier_mean_seconds", 1000, "of classifier"),
            Quantity("latency_cost", 1000, "longer"),
            Quantity("cost_of_asking", 1000, "for asking"),
            Quantity("cost_of_mistakes", 1000, "for mistakes"),
        ),
        of_payload=True,
    ),
    Layout(
        "accuracy",
        "Every expert on every kind and level{at}: overall accuracy, %",
        ("kind", "level"),
        (OVERALL,),
        "policy",
        heading="{} expert".format,
        keeps=lambda row: row["policy"] not in BORROWING,
        name="cross_expert",
    ),
    Layout(
        "payload_accuracy",
        "What a payload costs{at}: accuracy of the final exit / answers equal to float32's, %",
        ("expert", "kind", "level"),
        (Quantity("final_accuracy", 100), Quantity("agreement", 100)),
        "payload",
        thresholds=(),
        note="Every image is offloaded here, whatever its confidence.",
    ),
    Layout(
        "latency",
        "End-to-end latency by payload, policy classifier{at}: mean over the test images, ms",
        ("network", "kind", "level"),
        (MILLISECONDS,),
        "payload",
        keeps=lambda row: row["policy"] == CLASSIFIER,
        name="payload_latency",
    ),
    Layout(
        "own_calibration",
        "Expected calibration error{at}, points",
        ("expert", "exit"),
        (Quantity("ece", 100),),
        "calibrated",
        heading=_when,
        thresholds=(),
        note="Every expert on its own kind, all levels together, before and after temperature scaling.",
    ),
    Layout(
        "calibration",
        "Expected calibration error by level{at}: before / after temperature scaling, points",
        ("expert", "kind", "level"),
        (Quantity("ece_before", 100), Quantity("ece_after", 100)),
        "exit",
        heading="exit {}".format,
        thresholds=(),
    ),
    Layout(
        "own_reliability",
        "Reliability{at}: confidence / accuracy of the answers in a bin, %",
        ("expert", "exit", "bin"),
        (Quantity("mean_confidence", 100), Quantity("accuracy", 100)),
        "calibrated",
        heading=_when,
        thresholds=(),
        name="reliability",
        note="Bin b of 15 holds confidences above (b - 1)/15 and up to b/15, of every expert on its own kind, all "
        "levels together.",
    ),
    Layout(
        "outage",
        "Outage probability{at}: on the edge / overall, %",
        ("kind", "level"),
        (Quantity("edge_outage", 100), Quantity("overall_outage", 100)),
        "policy",
        thresholds=outage.THRESHOLDS,
        note="An outage: a batch of {batch_size} test images whose accuracy is below p_tar, over {shuffles} "
        "shuffles; one without any answer on the edge is not counted as an outage there.",
    ),
    Layout(
        "deadlines",
        "Missed deadlines{at}, % of the batches",
        ("network", "policy", "kind", "level"),
        (Quantity("missed", 100),),
        "t_tar_seconds",
        heading="{:g} s".format,
        of_payload=True,
        keeps=lambda row: row["t_tar_seconds"] in SHOWN_DEADLINES,
        note="Missed: a batch of {batch_size} test images whose accuracy is below p_tar or whose mean time "
        "is above t_tar; over {shuffles} shuffles.",
    ),
    Layout(
        "ablation",
        "Fidelities of the oracle policy{at}, %, and their difference to corrected, points",
        ("kind", "level", "fidelity"),
        (
            Quantity("overall_accuracy", 100, "overall accuracy"),
            Quantity("overall_accuracy_gain", 100, "difference"),
            Quantity("edge_exit_probability", 100, "edge exits"),
            Quantity("edge_exit_gain", 100, "difference"),
            Quantity("edge_accuracy", 100, "edge accuracy"),
            Quantity("edge_accuracy_gain", 100, "difference"),
        ),
        keeps=lambda row: row["policy"] == ORACLE,
        note="Differences are taken seed by seed.",
    ),
    Layout(
        "paper_comparison",
        "Published and ours{at}, %",
        ("policy", "kind", "level"),
        (
            Quantity("published_overall_accuracy", 100, "overall accuracy: published", ours=False),
            Quantity("overall_accuracy", 100, "ours"),
            Quantity("published_edge_exit_probability", 100, "edge exits: published", ours=False),
            Quantity("edge_exit_probability", 100, "ours"),
            Quantity("published_edge_accuracy", 100, "edge accuracy: published", ours=False),
            Quantity("edge_accuracy", 100, "ours"),
        ),
        thresholds=PUBLISHED_AT,
    ),
)
"""All tables, in the order in which they are shown."""


def named(names: Sequence[str]) -> tuple[Layout, ...]:
    """The tables of these names, or all if there are none; raises ``UsageError`` for an unknown name."""
    known = {layout.table: layout for layout in LAYOUTS}
    for name in names:
        if name not in known:
            raise UsageError(f"--table: there is no table '{name}'.{nearest(name, known)}")
    return tuple(layout for layout in LAYOUTS if not names or layout.table in names)


HEADLINE = named(("accuracy", "offloading", "latency"))
"""What the paper reports."""

CURVES = (
    Layout(
        "outage",
        "",
        ("policy", "kind", "level", "p_tar"),
        (Quantity("edge_outage", 100), Quantity("overall_outage", 100)),
        thresholds=(),
    ),
    Layout(
        "deadlines",
        "",
        ("network", "policy", "kind", "level", "t_tar_seconds"),
        (Quantity("missed", 100),),
        of_payload=True,
    ),
)
"""Read for the figures, which show more thresholds and target times than the tables."""
