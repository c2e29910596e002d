"""A run's results as tables: the rows of the views, as mean and 95 % interval over the run's seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from early_exit.fidelity import FIDELITIES
from early_exit.latency import NETWORKS
from early_exit.policies import BORROWING
from early_exit.uncertainty import mean_and_ci95
from early_exit.vocabulary import PAYLOADS, PRISTINE
from orchestrator.results.layouts import LAYOUTS, Layout, Quantity, Row
from orchestrator.runs.manifest import Manifest, manifest

Value = str | int | float

PLACES: dict[Value, int] = {
    **{name: place for place, name in enumerate((PRISTINE, *FIDELITIES, *NETWORKS, *PAYLOADS), start=-100)},
    **{name: place for place, name in enumerate(BORROWING, start=1)},
}
"""Names with an order of their own; all others come between them, alphabetically."""


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and half its 95 % interval, in the view's unit; no mean where no seed has a value."""

    mean: float | None
    ci95: float | None
    seeds: int

    def shown(self, scale: float) -> str:
        """One decimal of ``scale`` times the estimate; – for none."""
        if self.mean is None:
            return "–"
        mean = f"{round(scale * self.mean, 1) + 0:.1f}"  # no -0.0
        return mean if self.ci95 is None else f"{mean} ± {scale * self.ci95:.1f}"


Place = tuple[tuple[Value, ...], Value, str]
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
    note: str = ""
    """What else a reader must know."""

    @property
    def name(self) -> str:
        """Its layout's name."""
        return self.layout.table

    def grid(self) -> Grid:
        """Cells in percent or milliseconds as its title says; empty if there is no result."""
        layout = self.layout
        cells = in_order(cell for _, cell, _ in self.estimates)
        headings = [quantity.heading for quantity in layout.quantities]
        columns = [
            *(layout.lines),
            *(map(layout.heading, cells) if layout.across else headings),
        ]
        lines = sorted({line for line, _, _ in self.estimates}, key=_places)
        rows = [[*map(str, line), *self._cells(line, cells)] for line in lines]
        return Grid(self.title, columns, rows, "\n".join(filter(None, (self.caption, self.note))))

    def _cells(self, line: tuple[Value, ...], cells: list[Value]) -> list[str]:
        def shown(cell: Value, quantity: Quantity) -> str:
            estimate = self.estimates.get((line, cell, quantity.column))
            return "" if estimate is None else estimate.shown(quantity.scale)

        if self.layout.across is None:
            return [shown("", quantity) for quantity in self.layout.quantities]
        return [
            " / ".join(filter(None, [shown(cell, quantity) for quantity in self.layout.quantities]))
            for cell in cells
        ]

    def records(self) -> list[Row]:
        """One estimate each, in the unit of the view: what CSV, JSON and figures are made of."""
        return [
            {"table": self.name, "fidelity": self.fidelity, "p_tar": self.p_tar}
            | dict(zip(self.layout.lines, line, strict=True))
            | ({self.layout.across: cell} if self.layout.across else {})
            | {"quantity": column, "mean": found.mean, "ci95": found.ci95, "seeds": found.seeds}
            for (line, cell, column), found in self.estimates.items()
        ]


def tables(session: Session, run_id: int, layouts: Sequence[Layout] = LAYOUTS) -> list[ResultTable]:
    """The tables of a run at its headline threshold, for each fidelity; one without any row is left out."""
    run = manifest(session, run_id)
    found = []
    for layout in layouts:
        p_tar = _threshold(layout, run)
        rows = _read(session, layout, run, p_tar)
        if "fidelity" in layout.lines:
            if len(run.fidelities) > 1 and rows:
                found.append(_table(layout, run, ", ".join(run.fidelities), p_tar, rows))
            continue
        for fidelity in run.fidelities:
            if of_fidelity := [row for row in rows if row["fidelity"] == fidelity]:
                found.append(_table(layout, run, fidelity, p_tar, of_fidelity))
    return found


def _table(layout: Layout, run: Manifest, fidelity: str, p_tar: float | None, rows: list[Row]) -> ResultTable:
    at = f" at p_tar {p_tar:g}" if p_tar is not None else ""
    at += f", sent as {run.spec['payload']}" if layout.of_payload else ""
    named = "" if "fidelity" in layout.lines else run.among_several(fidelity)
    note = run.differences(fidelity) if layout.view == "paper_comparison" else layout.note.format_map(rows[0])
    title = layout.title.format(at=at + named)
    return ResultTable(layout, title, run.caption, fidelity, p_tar, _estimates(rows, layout), note)


def _threshold(layout: Layout, run: Manifest) -> float | None:
    if not layout.thresholds:
        return None
    return run.p_tar if run.p_tar in layout.thresholds else 0.8


def _read(session: Session, layout: Layout, run: Manifest, p_tar: float | None) -> list[Row]:
    asked: Row = {"run": run.run_id}
    if p_tar is not None:
        asked["p_tar"] = p_tar
    if layout.of_payload:
        asked["payload"] = run.spec["payload"]
    where = " AND ".join(f"{name} = :{name}" for name in asked)
    statement = f"SELECT * FROM {layout.view} WHERE {where}"  # noqa: S608  # our own names
    rows = [dict(row) for row in session.execute(text(statement), asked).mappings()]
    if rows and layout.view == "classifier_confusion":
        rows = _with_unpredicted(rows, run.kinds.experts)
    return [row for row in rows if layout.keeps(row)]


def _with_unpredicted(rows: list[Row], kinds: Sequence[str]) -> list[Row]:
    """A kind that was never predicted has no row in the view: its share is 0, in every seed."""
    same = ("fidelity", "seed", "kind", "level")
    there = {(*(row[name] for name in same), row["predicted"]) for row in rows}
    conditions = dict.fromkeys(tuple(row[name] for name in same) for row in rows)
    return rows + [
        {**dict(zip(same, condition, strict=True)), "predicted": predicted, "share": 0.0}
        for condition in conditions
        for predicted in kinds
        if (*condition, predicted) not in there
    ]


def _estimates(rows: Sequence[Row], layout: Layout) -> dict[Place, Estimate]:
    values: dict[Place, list[float]] = {}
    for row in rows:
        line, cell = tuple(row[name] for name in layout.lines), row[layout.across] if layout.across else ""
        for quantity in layout.quantities:
            of_seeds = values.setdefault((line, cell, quantity.column), [])
            # a published figure stands in every seed's row, and counts once
            if row[quantity.column] is not None and (quantity.ours or not of_seeds):
                of_seeds.append(row[quantity.column])
    places = sorted(values, key=lambda place: (_places(place[0]), _places([place[1]])))
    return {place: estimate(values[place]) for place in places}


def estimate(values: Sequence[float]) -> Estimate:
    """The estimate of one value for each seed that has one."""
    if not values:
        return Estimate(None, None, 0)
    return Estimate(*mean_and_ci95(values), len(values))


def in_order(values: Iterable[Value]) -> list[Value]:
    """Each once: numbers by size, pristine, the distortions alphabetically, then policies that borrow experts."""
    return sorted(set(values), key=_place)


def _places(line: Sequence[Value]) -> list[tuple[int, Value]]:
    return [_place(value) for value in line]


def _place(value: Value) -> tuple[int, Value]:
    return PLACES.get(value, 0), value
