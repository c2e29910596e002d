"""The paper's three results as tables: accuracy, offloading probability, end-to-end latency."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.models import Run
from early_exit.uncertainty import mean_and_margin
from early_exit.vocabulary import EXPERTS, POLICIES

Row = dict[str, Any]


@dataclass(frozen=True)
class ResultTable:
    """A table for people: cells are text, percent or milliseconds as the title says."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Quantity:
    """One number of a view in people's units: times ``scale``, one decimal."""

    column: str
    scale: float

    def over_seeds(self, rows: Sequence[Row]) -> str:
        """Mean, and ± half its 95 % interval where several seeds have a value; – for none."""
        values = [self.scale * row[self.column] for row in rows if row[self.column] is not None]
        if not values:
            return "–"
        mean, margin = mean_and_margin(values)
        return f"{mean:.1f}" if margin is None else f"{mean:.1f} ± {margin:.1f}"


OVERALL = Quantity("overall_accuracy", 100)
ON_THE_EDGE = Quantity("edge_accuracy", 100)
OFFLOADED = Quantity("offloading_probability", 100)
MILLISECONDS = Quantity("mean_seconds", 1000)


def tables(session: Session, run_id: int) -> list[ResultTable]:
    """The tables of a run at its headline threshold, for each fidelity; one without any row is left out."""
    p_tar = headline(session, run_id)
    found = []
    for view, build in (("accuracy", _accuracy), ("offloading", _offloading), ("latency", _latency)):
        rows = _read(session, view, run_id, p_tar)
        fidelities = list(dict.fromkeys(row["fidelity"] for row in rows))
        for fidelity in fidelities:
            suffix = f", fidelity {fidelity}" if len(fidelities) > 1 else ""
            found.append(build([row for row in rows if row["fidelity"] == fidelity], p_tar, suffix))
    return found


def headline(session: Session, run_id: int) -> float:
    """The p_tar that a run's tables filter by."""
    spec = session.scalars(select(Run.spec).where(Run.id == run_id)).one()
    return float(spec["p_tar"])


def _read(session: Session, view: str, run_id: int, p_tar: float) -> list[Row]:
    statement = text(f"SELECT * FROM {view} WHERE run = :run AND p_tar = :p_tar")  # noqa: S608  # our own names
    return [dict(row) for row in session.execute(statement, {"run": run_id, "p_tar": p_tar}).mappings()]


def _accuracy(rows: list[Row], p_tar: float, suffix: str) -> ResultTable:
    title = f"Accuracy at p_tar {p_tar:g}{suffix}: overall / on the edge, %"
    body = _policy_rows(rows, lambda same: f"{OVERALL.over_seeds(same)} / {ON_THE_EDGE.over_seeds(same)}")
    return ResultTable("accuracy", title, ["kind", "σ", *POLICIES], body)


def _offloading(rows: list[Row], p_tar: float, suffix: str) -> ResultTable:
    title = f"Offloading probability at p_tar {p_tar:g}{suffix}, %"
    return ResultTable(
        "offloading", title, ["kind", "σ", *POLICIES], _policy_rows(rows, OFFLOADED.over_seeds)
    )


def _latency(rows: list[Row], p_tar: float, suffix: str) -> ResultTable:
    title = f"End-to-end latency at p_tar {p_tar:g}{suffix}: mean over the test images, ms"
    body = [
        [profile, *cells]
        for profile in sorted({row["profile"] for row in rows})
        for cells in _policy_rows([row for row in rows if row["profile"] == profile], MILLISECONDS.over_seeds)
    ]
    return ResultTable("latency", title, ["network", "kind", "σ", *POLICIES], body)


def _policy_rows(rows: list[Row], cell: Callable[[Sequence[Row]], str]) -> list[list[str]]:
    """One line per kind and level, one cell per policy over all seeds; empty where there is no result."""
    same: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        same.setdefault((row["kind"], row["level"], row["policy"]), []).append(row)
    conditions = {(row["kind"], row["level"]) for row in rows}
    return [
        [
            kind,
            str(level),
            *(
                cell(same[kind, level, policy]) if (kind, level, policy) in same else ""
                for policy in POLICIES
            ),
        ]
        for kind, level in sorted(conditions, key=lambda c: (EXPERTS.index(c[0]), c[1]))
    ]
