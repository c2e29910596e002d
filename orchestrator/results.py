"""The paper's three results as tables: accuracy, offloading probability, end-to-end latency."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.models import Run
from early_exit.vocabulary import EXPERTS, POLICIES

Row = dict[str, Any]


@dataclass(frozen=True)
class ResultTable:
    """A table for people: cells are text, percent or milliseconds as the title says."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]


def tables(session: Session, run_id: int) -> list[ResultTable]:
    """The tables of a run at its headline threshold; a table without any row is left out."""
    p_tar = headline(session, run_id)
    found = [
        _accuracy(_read(session, "accuracy", run_id, p_tar), p_tar),
        _offloading(_read(session, "offloading", run_id, p_tar), p_tar),
        _latency(_read(session, "latency", run_id, p_tar), p_tar),
    ]
    return [table for table in found if table.rows]


def headline(session: Session, run_id: int) -> float:
    """The p_tar that a run's tables filter by."""
    spec = session.scalars(select(Run.spec).where(Run.id == run_id)).one()
    return float(spec["p_tar"])


def _read(session: Session, view: str, run_id: int, p_tar: float) -> list[Row]:
    statement = text(f"SELECT * FROM {view} WHERE run = :run AND p_tar = :p_tar")  # noqa: S608  # our own names
    return [dict(row) for row in session.execute(statement, {"run": run_id, "p_tar": p_tar}).mappings()]


def _accuracy(rows: list[Row], p_tar: float) -> ResultTable:
    def cell(row: Row) -> str:
        return f"{_percent(row['overall_accuracy'])} / {_percent(row['edge_accuracy'])}"

    title = f"Accuracy at p_tar {p_tar:g}: overall / on the edge, %"
    return ResultTable("accuracy", title, ["kind", "σ", *POLICIES], _policy_rows(rows, cell))


def _offloading(rows: list[Row], p_tar: float) -> ResultTable:
    def cell(row: Row) -> str:
        return _percent(row["offloading_probability"])

    title = f"Offloading probability at p_tar {p_tar:g}, %"
    return ResultTable("offloading", title, ["kind", "σ", *POLICIES], _policy_rows(rows, cell))


def _latency(rows: list[Row], p_tar: float) -> ResultTable:
    def cell(row: Row) -> str:
        return f"{1000 * row['mean_seconds']:.1f}"

    title = f"End-to-end latency at p_tar {p_tar:g}: mean over the test images, ms"
    body = [
        [profile, *cells]
        for profile in sorted({row["profile"] for row in rows})
        for cells in _policy_rows([row for row in rows if row["profile"] == profile], cell)
    ]
    return ResultTable("latency", title, ["network", "kind", "σ", *POLICIES], body)


def _policy_rows(rows: list[Row], cell: Callable[[Row], str]) -> list[list[str]]:
    """One line per kind and level, one cell per policy; empty where its job has no result."""
    cells = {(row["kind"], row["level"], row["policy"]): cell(row) for row in rows}
    conditions = {(row["kind"], row["level"]) for row in rows}
    return [
        [kind, str(level), *(cells.get((kind, level, policy), "") for policy in POLICIES)]
        for kind, level in sorted(conditions, key=lambda c: (EXPERTS.index(c[0]), c[1]))
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
