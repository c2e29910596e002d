"""A worker is frozen in a transaction on Postgres: whoever needs its rows goes on before a lease has passed."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict

import pytest

import db.engine
from db.engine import Unreachable, write
from db.limits import LEASE_SECONDS
from db.models import JobState
from db.recovery import expire
from db.runs import cancel

FROZEN = """
import json, sys
from db.engine import open_engine, write
from db.jobs import Claim, Outcome, finish

def end(session):
    done = finish(session, Claim(**json.loads(sys.argv[2])), Outcome(None, {}, 1_000))
    print("accepted" if done else "refused", flush=True)
    sys.stdin.readline()

write(open_engine(sys.argv[1], durable=False), end)
"""


@pytest.fixture
def database_url(new_database):
    """Of these tests: Postgres alone."""
    return new_database


@pytest.fixture
def engine(database_url, open_database, monkeypatch):
    """One whose transactions may stand still for a second, as they may for half a lease."""
    monkeypatch.setattr(db.engine, "STUCK_SECONDS", 1.0)
    return open_database(database_url)


@pytest.fixture
def two_parents(add_run):
    """A run in which c reads a and b, whose claims are the second and the third."""
    run = add_run({"a": [], "b": [], "c": ["a", "b"]})
    return run, run.claim("a"), run.claim("b")


@contextmanager
def frozen(url, held):
    """A worker process that has finished a job, holds its row and its child's, and does nothing."""
    command = [sys.executable, "-c", FROZEN, url, json.dumps(asdict(held))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "accepted\n"
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


def finish_sibling(run, held):
    assert run.finish(held)
    return {"a": JobState.RUNNING, "b": JobState.SUCCEEDED, "c": JobState.WAITING}


def cancel_run(run, held):
    assert write(run.engine, lambda session: cancel(session, run.id)) == 3
    return dict.fromkeys("abc", JobState.CANCELLED)


def expire_both(run, held):
    while run.states["a"] == JobState.RUNNING:
        write(run.engine, expire)
    return {"a": JobState.READY, "b": JobState.READY, "c": JobState.WAITING}


GOING_ON = (finish_sibling, cancel_run, expire_both)


@pytest.mark.parametrize("go_on", GOING_ON)
def test_a_worker_frozen_in_a_transaction_holds_nobody_up(
    go_on, two_parents, database_url, monkeypatch, later
):
    """Once it thaws its transaction begins anew: it is accepted, or it is fenced out."""
    run, held, sibling = two_parents
    monkeypatch.setenv("ORCHESTRATOR_LEASE_SECONDS", "2")
    with frozen(database_url, held) as process:
        later(LEASE_SECONDS + 1)
        assert go_on(run, sibling) == run.states
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("\n\n\n")
    assert said.split() == ["accepted" if go_on is finish_sibling else "refused"]


@pytest.mark.parametrize("go_on", [finish_sibling, cancel_run])
def test_without_the_limit_on_silence_they_wait_for_as_long_as_it_lives(
    go_on, two_parents, database_url, monkeypatch
):
    """The control."""
    run, held, sibling = two_parents
    monkeypatch.setattr(write, "__defaults__", (3.0,))
    with frozen(f"{database_url}&options=-c%20idle_in_transaction_session_timeout%3D0", held):
        with pytest.raises(Unreachable, match="lock timeout"):
            go_on(run, sibling)
