"""What a run has computed, for comparison with an undisturbed one; and what must be true after any storm."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Table, case, func, select
from sqlalchemy.orm import Session

import db.results.tables  # noqa: F401  # the tables of results belong to the models
from db.artifacts import ArtifactStore
from db.engine import open_engine, reading
from db.models import Artifact, Base, Job, JobState, Run, RunState
from db.schema import upgrade
from harness import link
from harness.cluster import Cluster
from harness.graph import Node, submit_graph
from orchestrator.submit.in_process import run_in_process

MEASURED_STAGES = ("measure", "latency", "deadlines")
MEASURED_TABLES = ("stage_times", "latencies", "missed_deadlines")
"""Measured times, and what is computed from them: no two runs have the same; which rows there are is the same."""


@dataclass(frozen=True)
class Numbers:
    """Every file's digest by key, and every row of every table of results with the key that it belongs to."""

    files: tuple[tuple[Any, ...], ...]
    rows: dict[str, tuple[tuple[Any, ...], ...]]

    def lost(self, oracle: "Numbers") -> int:
        """How many keys of the oracle have no file here, or miss a row."""
        return len({row[0] for row in (oracle.all - self.all)})

    def duplicated(self, oracle: "Numbers") -> int:
        """How many files and rows the oracle does not have, or not as often."""
        return (self.all - oracle.all).total()

    @property
    def all(self) -> Counter[tuple[Any, ...]]:
        """Files and rows, each with its key first."""
        rows = ((row[0], table, *row[1:]) for table, of_table in self.rows.items() for row in of_table)
        return Counter([*self.files, *rows])


def undisturbed(folder: Path, nodes: Sequence[Node]) -> Numbers:
    """What these jobs compute one after another in this process, on SQLite."""
    engine = open_engine(f"sqlite:///{folder / 'database.sqlite'}")
    try:
        upgrade(engine)
        run_id = submit_graph(engine, nodes)
        with link.installed():
            run_in_process(engine, ArtifactStore(str(folder / "artifacts")), run_id)
        return numbers(engine, run_id)
    finally:
        engine.dispose()


def numbers(engine: Engine, run_id: int) -> Numbers:
    """What a run has computed, measured times aside."""
    of_run = select(Job.artifact_id).where(Job.run_id == run_id)
    digest = case((Artifact.stage.in_(MEASURED_STAGES), "measured"), else_=Artifact.sha256)
    files = select(Artifact.key, digest).where(Artifact.id.in_(of_run))
    with reading(engine) as session:
        return Numbers(
            _sorted(session, files),
            {table.name: _sorted(session, _rows(table, of_run)) for table in _result_tables()},
        )


def _sorted(session: Session, statement: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(sorted((tuple(row) for row in session.execute(statement)), key=repr))


def _rows(table: Table, of_run: Any) -> Any:
    compared = table.primary_key.columns if table.name in MEASURED_TABLES else table.columns
    columns = [column for column in compared if column.name != "artifact_id"]
    joined = select(Artifact.key, *columns).join(table, table.c.artifact_id == Artifact.id)
    return joined.where(Artifact.id.in_(of_run))


def _result_tables() -> list[Table]:
    tables = Base.metadata.sorted_tables
    return [table for table in tables if "artifact_id" in table.c and table.name != Job.__tablename__]


def assert_invariants(cluster: Cluster, run_id: int, oracle: Numbers) -> None:
    """All ended well, all is there once, as in the undisturbed run, and nothing is left lying about."""
    with reading(cluster.engine) as session:
        states = select(Job.state, func.count()).where(Job.run_id == run_id).group_by(Job.state)
        ended = dict(map(tuple, session.execute(states)))
        failed = select(Job.error, func.count()).where(Job.state == JobState.FAILED).group_by(Job.error)
        errors = session.execute(failed).all()
        run = session.get_one(Run, run_id)
        stored = select(func.count(), func.count(Artifact.key.distinct())).select_from(Artifact)
        artifacts, keys = session.execute(stored).one()
    assert ended.keys() == {JobState.SUCCEEDED}, (ended, errors)
    assert run.state == RunState.SUCCEEDED
    assert artifacts == keys
    found = numbers(cluster.engine, run_id)
    assert found.files == oracle.files
    for table, rows in oracle.rows.items():
        assert found.rows[table] == rows, table
    assert bad_files(cluster) == []
    cluster.reconcile_once()
    assert list((cluster.store.root / "temporary").iterdir()) == []


def bad_files(cluster: Cluster) -> list[str]:
    """Artifacts whose file is not there or has another digest."""
    statement = select(Artifact.uri, Artifact.sha256).where(Artifact.uri.is_not(None))
    with reading(cluster.engine) as session:
        stored = session.execute(statement).all()
    return [uri for uri, sha256 in stored if not _verifies(cluster, uri, sha256)]


def _verifies(cluster: Cluster, uri: str, sha256: str) -> bool:
    path = cluster.store.root / uri
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
