"""A stage whose version was raised: its older rows are never shown for newer code, nor continued by it."""

import sqlite3
from contextlib import closing

import pytest

NEWER = """
import sys
from tasks.params import Sweep
Sweep.version = 99
from orchestrator.main import main
sys.argv = ["orchestrator", *sys.argv[1:]]
main()
"""
"""``orchestrator`` of a checkout in which the stage ``sweep`` has another version."""

SHARED = (
    "SELECT COUNT(*) FROM jobs a JOIN jobs b ON b.artifact_id = a.artifact_id"
    " WHERE a.run_id = 1 AND b.run_id = 2 AND a.stage = ?"
)


@pytest.fixture
def copied(copy_of, in_process):
    """A home with all that the small paper has left."""
    return copy_of(in_process.home)


def newer(home, *arguments):
    """Run the newer ``orchestrator`` to its end."""
    return home.run_code(NEWER, *arguments)


def change(home, *statements):
    """Write to a home's database."""
    with closing(sqlite3.connect(home.path / "orchestrator.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def test_a_submit_of_newer_code_shows_no_row_of_the_older(copied, small):
    output = newer(copied, "submit", "full-paper", "--in-process", *small())
    assert output.returncode == 0, output.stderr
    sweeps = copied.value("SELECT COUNT(*) FROM jobs WHERE run_id = 1 AND stage = 'sweep'")
    assert copied.computed_stages(2) == {"sweep": sweeps}
    assert copied.value(SHARED, "sweep") == 0
    assert copied.value(SHARED, "predict") > 0
    versions = "SELECT DISTINCT substr(code, 1, 9) FROM jobs WHERE stage = 'sweep' ORDER BY run_id"
    assert copied.rows(versions) == [("sweep 1, ",), ("sweep 99,",)]


def test_the_same_code_finds_them(copied, small):
    """The control: what keeps the rows apart is the version alone."""
    output = copied.command("submit", "full-paper", "--in-process", *small())
    assert output.returncode == 0, output.stderr
    assert copied.computed_stages(2) == {}
    assert copied.value(SHARED, "sweep") > 0


REFUSED = "error: run 1 was planned by other code: 'sweep 1, numpy "


def test_newer_code_does_not_resume_an_older_run(copied):
    change(
        copied,
        "UPDATE jobs SET state = 'ready', artifact_id = NULL"
        " WHERE id = (SELECT MAX(id) FROM jobs WHERE stage = 'sweep')",
        "UPDATE runs SET state = 'active', finished_at = NULL",
    )
    resumed = newer(copied, "resume", "1")
    assert resumed.returncode == 2
    assert resumed.stderr.startswith(REFUSED)
    assert "here is 'sweep 99, numpy " in resumed.stderr
    assert resumed.stderr.count("\n") == 1
    assert copied.value("SELECT COUNT(*) FROM jobs WHERE state = 'ready'") == 1
    assert copied.processes() == []


def test_newer_code_does_not_retry_an_older_run(copied):
    change(
        copied,
        "UPDATE jobs SET state = 'failed', error = 'no', artifact_id = NULL"
        " WHERE id = (SELECT MAX(id) FROM jobs WHERE stage = 'sweep')",
        "UPDATE runs SET state = 'failed'",
    )
    retried = newer(copied, "retry", "1")
    assert retried.returncode == 2
    assert retried.stderr.startswith(REFUSED)
    assert retried.stderr.count("\n") == 1
    assert copied.rows("SELECT state FROM runs") == [("failed",)]
