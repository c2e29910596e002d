"""A run's results: its tables and curves, read once, and where its questions read the rest."""

from dataclasses import dataclass

import pandas as pd
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from orchestrator.report.panels import with_every_kind
from orchestrator.results.layouts import CURVES
from orchestrator.results.tables import ResultTable, tables
from orchestrator.runs.manifest import Manifest, manifest


@dataclass(frozen=True)
class Findings:
    """The results of one run, for as long as ``session`` is open."""

    run: Manifest
    tables: list[ResultTable]
    curves: list[ResultTable]
    """Over all thresholds and target times: figures show more of them than tables do."""
    session: Session
    store: ArtifactStore

    def of(self, name: str) -> list[ResultTable]:
        """The tables of a layout, one per fidelity."""
        return [table for table in self.tables if table.name == name]

    def frame(self, name: str, fidelity: str) -> pd.DataFrame:
        """The estimates of a table; empty if the run has none."""
        return _frame(self.tables, name, fidelity)

    def curve(self, name: str, fidelity: str) -> pd.DataFrame:
        """The estimates of a curve; empty if the run has none."""
        return _frame(self.curves, name, fidelity)


def findings(session: Session, store: ArtifactStore, run_id: int) -> Findings:
    """Read the tables and curves of a run."""
    return Findings(
        manifest(session, run_id), tables(session, run_id), tables(session, run_id, CURVES), session, store
    )


def _frame(tables: list[ResultTable], name: str, fidelity: str) -> pd.DataFrame:
    of_both = (table for table in tables if (table.name, table.fidelity) == (name, fidelity))
    records = [record for table in of_both for record in table.records()]
    if not records:
        return pd.DataFrame()
    return with_every_kind(pd.DataFrame(records).astype({"mean": float, "ci95": float}))
