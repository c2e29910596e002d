"""A run's results as tables: what the views say, as mean and 95 % interval over the run's seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from early_exit.uncertainty import mean_and_margin
from early_exit.vocabulary import PRISTINE
from orchestrator.manifest import Manifest, manifest

Row = dict[str, Any]

PUBLISHED_AT = (0.7, 0.8, 0.9)
"""Thresholds that there are published figures at; the tables take 0.8 where the run's own is none of them."""

ORDER = {PRISTINE: -1, "oracle": 1, "classifier": 2}
"""Of kinds, experts and policies alike; all else stands between them, sorted as it is."""

HEADINGS = {"profile": "network", "policy": "expert"}


@dataclass(frozen=True)
class Quantity:
    """A column of a view, and how people see it: times ``scale``, one decimal."""

    column: str
    scale: float
    heading: str = ""
    ours: bool = True
    """Else it is the same in every seed, and has no interval."""


@dataclass(frozen=True)
class Layout:
    """How a view becomes a table: one line per ``lines``, in it one cell per value of ``across``, or per quantity."""

    view: str
    title: str
    """``{at}`` stands for the threshold and, where there are several, the fidelity."""
    lines: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    across: str | None = None
    """``policy``, or the kind that was ``seen``."""
    has_p_tar: bool = True
    has_payload: bool = False
    """The run's own of several payloads is shown."""


OVERALL = Quantity("overall_accuracy", 100)
ON_THE_EDGE = Quantity("edge_accuracy", 100)
OFFLOADED = Quantity("offloading_probability", 100)
MILLISECONDS = Quantity("mean_seconds", 1000)

HEADLINE = (
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
        ("profile", "kind", "level"),
        (MILLISECONDS,),
        "policy",
        has_payload=True,
    ),
)
"""What the paper reports."""

LAYOUTS = (
    *HEADLINE,
    Layout(
        "classifier_confusion",
        "What the classifier sees{at}, % of the test images",
        ("kind", "level"),
        (Quantity("share", 100),),
        "seen",
        has_p_tar=False,
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
    ),
)
"""All tables. Policies that always ask one expert are the cross-expert evaluation."""


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and half its 95 % interval, in the view's unit; no mean where no seed has a value."""

    mean: float | None
    margin: float | None
    seeds: int

    def shown(self, scale: float) -> str:
        """One decimal of ``scale`` times the estimate; – for none."""
        if self.mean is None:
            return "–"
        mean = f"{scale * self.mean:.1f}"
        return mean if self.margin is None else f"{mean} ± {scale * self.margin:.1f}"


Place = tuple[tuple[str | int, ...], str, str]
"""Line, value of ``across`` ('' without), column of the quantity."""


@dataclass(frozen=True)
class Grid:
    """A table as text."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str


@dataclass(frozen=True)
class ResultTable:
    """One table of one fidelity."""

    layout: Layout
    title: str
    caption: str
    fidelity: str
    p_tar: float | None
    estimates: dict[Place, Estimate]
    cells: tuple[str, ...] = ()
    """The values of the layout's ``across``, where it has one."""

    @property
    def name(self) -> str:
        """The view that it comes from."""
        return self.layout.view

    def grid(self) -> Grid:
        """Cells in percent or milliseconds as the title says; empty where there is no result."""
        headings = self.cells or [quantity.heading for quantity in self.layout.quantities]
        columns = [*(HEADINGS.get(line, line) for line in self.layout.lines), *headings]
        lines = sorted({line for line, _, _ in self.estimates}, key=_in_order)
        return Grid(
            self.title, columns, [[*map(str, line), *self._cells(line)] for line in lines], self.caption
        )

    def _cells(self, line: tuple[str | int, ...]) -> list[str]:
        def shown(cell: str, quantity: Quantity) -> str:
            estimate = self.estimates.get((line, cell, quantity.column))
            return "" if estimate is None else estimate.shown(quantity.scale)

        if self.layout.across is None:
            return [shown("", quantity) for quantity in self.layout.quantities]
        return [
            " / ".join(filter(None, [shown(cell, quantity) for quantity in self.layout.quantities]))
            for cell in self.cells
        ]

    def records(self) -> list[Row]:
        """One estimate each, in the unit of the view: what CSV, JSON and figures are made of."""
        return [
            {"table": self.name, "fidelity": self.fidelity, "p_tar": self.p_tar}
            | dict(zip(self.layout.lines, line, strict=True))
            | ({self.layout.across: cell} if self.layout.across else {})
            | {"quantity": column, "mean": found.mean, "margin": found.margin, "seeds": found.seeds}
            for (line, cell, column), found in self.estimates.items()
        ]


def tables(session: Session, run_id: int, layouts: Sequence[Layout] = LAYOUTS) -> list[ResultTable]:
    """The tables of a run at its headline threshold, for each fidelity; one without any row is left out."""
    run = manifest(session, run_id)
    found = []
    for layout in layouts:
        p_tar = _threshold(layout, run)
        rows = _read(session, layout, run, p_tar)
        for fidelity in [name for name in run.fidelities if any(row["fidelity"] == name for row in rows)]:
            at = f" at p_tar {p_tar:g}" if p_tar is not None else ""
            at += f", sent as {run.spec['payload']}" if layout.has_payload else ""
            title = layout.title.format(at=at + run.among_several(fidelity))
            caption = run.caption + (
                f"\n{run.differences(fidelity)}" if layout.view == "paper_comparison" else ""
            )
            estimates = _estimates([row for row in rows if row["fidelity"] == fidelity], layout)
            cells = _cells(layout, run)
            found.append(ResultTable(layout, title, caption, fidelity, p_tar, estimates, cells))
    return found


def _cells(layout: Layout, run: Manifest) -> tuple[str, ...]:
    match layout.across:
        case "policy":
            return run.kinds.policies
        case "seen":
            return run.kinds.experts
        case _:
            return ()


def _threshold(layout: Layout, run: Manifest) -> float | None:
    if not layout.has_p_tar:
        return None
    if layout.view == "paper_comparison" and run.p_tar not in PUBLISHED_AT:
        return 0.8
    return run.p_tar


def _read(session: Session, layout: Layout, run: Manifest, p_tar: float | None) -> list[Row]:
    asked: Row = {"run": run.run_id}
    if layout.has_p_tar:
        asked["p_tar"] = p_tar
    if layout.has_payload:
        asked["payload"] = run.spec["payload"]
    where = " AND ".join(f"{name} = :{name}" for name in asked)
    statement = f"SELECT * FROM {layout.view} WHERE {where}"  # noqa: S608  # our own names
    rows = [dict(row) for row in session.execute(text(statement), asked).mappings()]
    return _with_unseen(rows, run.kinds.experts) if layout.view == "classifier_confusion" else rows


def _with_unseen(rows: list[Row], kinds: Sequence[str]) -> list[Row]:
    """A kind that no picture was taken for has no row in the view: its share is 0, in every seed."""
    same = ("fidelity", "seed", "kind", "level")
    there = {(*(row[name] for name in same), row["seen"]) for row in rows}
    conditions = dict.fromkeys(tuple(row[name] for name in same) for row in rows)
    return rows + [
        {**dict(zip(same, condition, strict=True)), "seen": seen, "share": 0.0}
        for condition in conditions
        for seen in kinds
        if (*condition, seen) not in there
    ]


def _estimates(rows: Sequence[Row], layout: Layout) -> dict[Place, Estimate]:
    values: dict[Place, list[float]] = {}
    for row in rows:
        line, cell = tuple(row[name] for name in layout.lines), row[layout.across] if layout.across else ""
        for quantity in layout.quantities:
            of_seeds = values.setdefault((line, cell, quantity.column), [])
            if row[quantity.column] is not None and (quantity.ours or not of_seeds):
                of_seeds.append(row[quantity.column])
    places = sorted(values, key=lambda place: (_in_order(place[0]), _in_order([place[1]])))
    return {place: estimate(values[place]) for place in places}


def estimate(values: Sequence[float]) -> Estimate:
    """Of one value per seed that has one."""
    if not values:
        return Estimate(None, None, 0)
    return Estimate(*mean_and_margin(values), len(values))


def _in_order(line: Sequence[str | int]) -> list[tuple[int, str | int]]:
    return [(ORDER.get(str(name), 0), name) for name in line]
