"""Six threads that do anything to one database at once: a seed chooses what, the database in which order."""

import time

import harness.fuzz
import pytest
from harness.fuzz import Fuzz
from harness.plans import DATASET, install

import db.clock
import db.jobs
import db.recovery
from db.engine import write
from orchestrator.plan.spec import resolve

TIMES = 25
"""What each thread does in a round."""


@pytest.fixture
def fuzz(engine, monkeypatch, seed):
    """The threads, on a database of their own: once SQLite, once Postgres."""
    install(monkeypatch)
    monkeypatch.setattr(db.jobs, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(db.clock, "shift_seconds", 0.0)
    write(engine, lambda session: session.execute(DATASET))
    return Fuzz(engine, resolve("demo", []), seed)


def play(fuzz, rounds):
    for _ in range(rounds):
        fuzz.play(TIMES)


def test_whatever_happens_at_once_nothing_is_lost_or_doubled(fuzz, engine, say):
    play(fuzz, 6)
    fuzz.end()
    say(f"fuzz on {engine.dialect.name}: {fuzz.line()}")


@pytest.mark.storm  # it may take some hundred rounds
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_without_the_lock_on_the_runs_of_a_repair_it_finds_a_run_that_ended_with_an_open_job(
    fuzz, monkeypatch
):
    """The control: a repair looks whether the runs are active, and lets them end beside it."""

    def look_only(session, run_ids):
        time.sleep(0.05)  # a run that may end meanwhile does so sooner or later; this makes it sooner
        return sorted(run_ids)

    monkeypatch.setattr(db.recovery, "_lock_active", look_only)
    monkeypatch.setitem(harness.fuzz.WEIGHTS, "repair", 30)
    with pytest.raises(AssertionError, match="some of its jobs have not"):
        play(fuzz, 200)


@pytest.mark.storm
@pytest.mark.timeout(0)
def test_ten_minutes_of_it_lose_and_double_nothing(fuzz, engine, say, number):
    end = time.monotonic() + number("CHAOS_SECONDS", 600)
    while time.monotonic() < end:
        fuzz.play(TIMES)
    fuzz.end()
    say(f"fuzz on {engine.dialect.name}: {fuzz.line()}")
