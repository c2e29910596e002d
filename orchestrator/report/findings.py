"""All numbers and images of a run that a report shows, read once."""

from dataclasses import dataclass

import pandas as pd
from sqlalchemy import text
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from orchestrator.report.examples import Examples, examples_of
from orchestrator.report.panels import with_every_kind
from orchestrator.results.layouts import CURVES
from orchestrator.results.tables import ResultTable, estimate, tables
from orchestrator.runs.manifest import Manifest, manifest

SWEPT = """
SELECT a.fidelity, a.policy, a.kind, a.level, a.p_tar, a.overall_accuracy, o.offloading_probability
FROM accuracy a JOIN offloading o ON o.run = a.run AND o.fidelity = a.fidelity AND o.seed = a.seed
     AND o.policy = a.policy AND o.kind = a.kind AND o.level = a.level AND o.p_tar = a.p_tar
WHERE a.run = :run
"""


@dataclass(frozen=True)
class Findings:
    """What ``findings`` has read."""

    run: Manifest
    tables: list[ResultTable]
    curves: list[ResultTable]
    """Over all thresholds and target times: what figures show more of than tables do."""
    swept: pd.DataFrame
    """Columns of ``figures.tradeoff`` for every fidelity."""
    examples: list[Examples]

    def of(self, name: str) -> list[ResultTable]:
        """The tables of a layout, one per fidelity."""
        return [table for table in self.tables if table.name == name]

    def frame(self, name: str, fidelity: str) -> pd.DataFrame:
        """The estimates of a table; no lines where there is none."""
        return _frame([table for table in self.of(name) if table.fidelity == fidelity])

    def curve(self, name: str, fidelity: str) -> pd.DataFrame:
        """The same of a curve."""
        return _frame([table for table in self.curves if (table.name, table.fidelity) == (name, fidelity)])


def findings(session: Session, store: ArtifactStore, run_id: int) -> Findings:
    """Read everything; one statement per kind of result."""
    run = manifest(session, run_id)
    return Findings(
        run,
        tables(session, run_id),
        tables(session, run_id, CURVES),
        _swept(session, run_id),
        examples_of(session, store, run),
    )


def _frame(tables: list[ResultTable]) -> pd.DataFrame:
    records = [record for table in tables for record in table.records()]
    if not records:
        return pd.DataFrame()
    return with_every_kind(pd.DataFrame(records).astype({"mean": float, "ci95": float}))


def _swept(session: Session, run_id: int) -> pd.DataFrame:
    values: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for *key, accuracy, offloading in session.execute(text(SWEPT), {"run": run_id}):
        values.setdefault(tuple(key), []).append((accuracy, offloading))
    lines = []
    for group, of_seeds in values.items():
        accuracies, offloadings = zip(*of_seeds, strict=True)
        found = estimate(accuracies)
        offloading = sum(offloadings) / len(offloadings)
        lines.append((*group, offloading, found.mean, found.ci95))
    names = ["fidelity", "policy", "kind", "level", "p_tar", "offloading", "mean", "ci95"]
    return with_every_kind(pd.DataFrame(lines, columns=names))
