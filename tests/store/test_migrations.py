"""Databases of before: a run keeps its results through every upgrade, and this code reads them."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, select, text

import db.schema
from db.engine import reading, write
from db.jobs import Worker, claim
from db.models import Job, JobState, Run, RunState
from db.schema import upgrade
from orchestrator.results.tables import tables
from orchestrator.runs.manifest import manifest

CONDITION = {"kind": "gaussian_blur", "level": 3}
POINT = {"policy": "oracle", **CONDITION, "p_tar": 0.8}
SECONDS = {
    "mean": 0.5,
    "p50": 0.25,
    "p95": 1.0,
    "classifier": 0.0,
    "edge": 0.125,
    "link": 0.25,
    "cloud": 0.125,
}
ROWS = {
    "prepare": {},
    "train-classifier": {
        "training_epochs": {"epoch": 1, "network": "classifier", "train_loss": 2.0, "validation_loss": 1.0}
        | {"validation_accuracy": 0.5, "learning_rate": 0.01}
    },
    "classify": {"classifications": {**CONDITION, "image": 7, "seen": "gaussian_blur", "confidence": 0.75}},
    "train-expert": {
        "experts": {"expert": "gaussian_blur", "classes": 2, "best_epoch": 1, "validation_loss": 0.5},
        "temperatures": {"expert": "gaussian_blur", "exit": 1, "temperature": 1.5},
    },
    "predict": {
        "predictions": {"expert": "gaussian_blur", **CONDITION, "image": 7, "exit": 1, "confidence": 0.75}
        | {"predicted": 1, "correct": True}
    },
    "sweep": {
        # 8 images: 2 leave at exit 1, 1 of them right; 1 at exit 2, right; 1 at 3, wrong; 4 in the cloud, 3 right
        "sweep_points": POINT
        | {"n": 8, "n1": 2, "n2": 1, "n3": 1, "n4": 4}
        | {"c1": 1, "c2": 1, "c3": 0, "c4": 3, "r1": 2, "r2": 3, "r3": 4}
    },
    "measure": {
        "stage_times": {"part": "edge_1", "device": "cpu", "hardware": "a CPU", "seconds": 0.125}
        | {"payload_bytes": None}
    },
    "latency": {
        "latencies": {**POINT, "profile": "paris", "payload": "json", "n": 8, "offloaded": 4}
        | {f"{part}_seconds": value for part, value in SECONDS.items()}
    },
}
"""A row of every table of then, by the stage that wrote it."""
SHARED = "prepare"
"""Writes no rows: seeds and fidelities share it."""
SPEC = {
    "seed": 2**32 - 1,
    "p_tar": 0.8,
    "payload": "json",
    "profile": "demo",
    "image_size": 64,
    "split_seed": 0,
}
SPEC |= {"backbone": {"epochs": 3}, "levels": {"gaussian_blur": [3], "gaussian_noise": [20]}}
ENDED = {"state": "succeeded", "finished_at": 2.0}


def upgrade_to(engine, revision):
    config = Config()
    config.set_main_option("script_location", str(Path(db.schema.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def insert_all(engine, rows):
    """``{table: [row, …]}`` into a schema that the models do not know."""
    of_then = MetaData()
    with engine.begin() as connection:
        of_then.reflect(connection)
        for table, values in rows.items():
            connection.execute(of_then.tables[table].insert(), values)


def run_of_then(**columns):
    """One run with a finished job and an artifact for every stage in ``ROWS``."""
    run = {"id": 1, "identity": "i", "plan": "full-paper", "profile": "demo", "spec": SPEC, **ENDED}
    run |= {"code_version": "0.1.0", "environment": {}, "dataset_id": 1, "created_at": 1.0, **columns}
    job = {"run_id": 1, "code": "1", "params": {}, "queue": "cpu", "state": "succeeded", "found": False}
    job |= {"waiting_for": 0, "attempt": 1, "failures": 0, "losses": 0, "deadline_seconds": 600}
    stages = list(enumerate(ROWS, start=1))
    rows = {
        "datasets": [
            {"id": 1, "digest": "d", "uri": "file:///d", "classes": ["a", "b"], "ignored_files": 0}
            | {"built_in": True}
        ],
        "images": [
            {"dataset_id": 1, "index": 7, "path": "a/7.png", "label": 1, "split": "test", "sha256": "s"}
            | {"size": 1, "mtime_ns": 1}
        ],
        "runs": [run],
        "artifacts": [
            {"id": number, "key": f"key-{stage}", "stage": stage, "bytes": 0, "created_at": 1.0}
            for number, stage in stages
        ],
        "jobs": [
            job | {"id": number, "stage": stage, "label": stage, "key": f"key-{stage}", "artifact_id": number}
            for number, stage in stages
        ],
    }
    for number, stage in stages:
        for table, row in ROWS[stage].items():
            rows[table] = [row | {"artifact_id": number}]
    return rows


@pytest.fixture
def upgraded(empty_engine):
    """A database of revision 0002 with a finished run, brought to this code's schema."""
    upgrade_to(empty_engine, "0002")
    insert_all(empty_engine, run_of_then())
    upgrade(empty_engine)
    return empty_engine


def query(engine, statement):
    with reading(engine) as session:
        return [dict(row) for row in session.execute(text(statement)).mappings()]


def test_results_of_before_stand_under_their_seed_and_the_papers_idea(upgraded):
    with reading(upgraded) as session:
        jobs = {job.stage: (job.seed, job.fidelity) for job in session.scalars(select(Job))}
    assert jobs == {stage: (None, None) if stage == SHARED else (SPEC["seed"], "corrected") for stage in ROWS}


VARIANT = {"run": 1, "fidelity": "corrected", "seed": SPEC["seed"]}


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (
            "accuracy",
            {**POINT, "images": 8, "overall_accuracy": 5 / 8, "edge_accuracy": 2 / 4, "cloud_accuracy": 3 / 4}
            | {"edge_exits": 4},
        ),
        ("offloading", {**POINT, "images": 8, "offloading_probability": 0.5, "edge_exit_probability": 0.5}),
        (
            "latency",
            {**POINT, "profile": "paris", "payload": "json", "images": 8, "offloading_probability": 0.5}
            | {f"{part}_seconds": value for part, value in SECONDS.items()},
        ),
        ("classifier_confusion", {**CONDITION, "seen": "gaussian_blur", "images": 1, "share": 1.0}),
    ],
)
def test_the_views_show_what_was_there(upgraded, view, expected):
    assert query(upgraded, f"SELECT * FROM {view}") == [VARIANT | expected]  # noqa: S608  # our own names


def test_no_row_of_before_is_lost(upgraded):
    for tables_of_stage in ROWS.values():
        for table, row in tables_of_stage.items():
            (found,) = query(upgraded, f"SELECT * FROM {table}")  # noqa: S608  # our own names
            assert {name: found[name] for name in row} == row


def test_the_tables_of_a_run_of_before_are_still_printed(upgraded):
    with reading(upgraded) as session:
        shown = {table.name: table for table in tables(session, 1)}
        assert manifest(session, 1).caption.endswith(f"1 test images, seed {SPEC['seed']}")
    assert shown.keys() == {"accuracy", "offloading", "latency", "latency_parts", "classifier_confusion"}
    grid = shown["accuracy"].grid()
    assert (grid.columns, grid.rows) == (["kind", "level", "oracle"], [["gaussian_blur", "3", "62.5 / 50.0"]])


def test_a_run_that_was_active_waits_for_the_code_that_planned_it(empty_engine):
    """Its stages have other versions now, so that nobody here may claim its jobs."""
    upgrade_to(empty_engine, "0002")
    rows = run_of_then(state="active", finished_at=None)
    rows["jobs"][-1] |= {"state": "ready", "artifact_id": None}
    del rows["artifacts"][-1], rows["latencies"]
    insert_all(empty_engine, rows)
    upgrade(empty_engine)
    with reading(empty_engine) as session:
        assert session.get_one(Run, 1).state == RunState.ACTIVE
        assert session.get_one(Job, len(ROWS)).state == JobState.READY
    assert not claimed(empty_engine, len(ROWS), code="2")
    assert claimed(empty_engine, len(ROWS), code="1")


def claimed(engine, job_id, code):
    """Whether a worker of that code gets the job."""
    worker = Worker("worker-1", "host-1", 4711, (code,))
    return write(engine, lambda session: claim(session, job_id, worker)) is not None


@pytest.mark.parametrize("revision", ["0003", "0004"])
def test_an_upgrade_that_stopped_half_way_goes_on(empty_engine, revision):
    """Each revision by itself, as releases between may have left a database."""
    upgrade_to(empty_engine, "0002")
    insert_all(empty_engine, run_of_then())
    upgrade_to(empty_engine, revision)
    upgrade(empty_engine)
    assert query(empty_engine, "SELECT run, fidelity, seed, overall_accuracy FROM accuracy") == [
        VARIANT | {"overall_accuracy": 5 / 8}
    ]
    assert query(empty_engine, "SELECT count(*) AS n FROM published")[0]["n"] > 0
