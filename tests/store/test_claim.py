"""Claiming a job: who gets it, and what happens to a key that is there or being computed."""

import pytest
from sqlalchemy import select

from db.clock import now
from db.engine import reading
from db.jobs import JobInput, Worker
from db.limits import LEASE_SECONDS
from db.models import JobState, RunState


def test_a_ready_job_is_claimed_with_its_first_attempt_and_a_lease(add_run, engine):
    run = add_run({"a": []}, columns={"a": {"params": {"level": 3}, "stage": "distort"}})
    held = run.claim("a")
    assert (held.job_id, held.run_id, held.attempt) == (run.jobs["a"], run.id, 1)
    assert (held.stage, held.label, held.key, held.params) == ("distort", "a", "key-a", {"level": 3})
    assert held.inputs == ()
    assert held.writer == f"{run.jobs['a']}.1"
    with reading(engine) as session:
        left = run.job("a").lease_until - session.scalar(select(now()))
    assert LEASE_SECONDS - 10 < left <= LEASE_SECONDS
    assert run.states == {"a": JobState.RUNNING}


def test_an_attempt_says_who_executes_it_and_since_when(add_run, engine):
    run = add_run({"a": []})
    run.claim("a", Worker("cpu-2", "node-7", 99, ("sweep 1",)))
    (attempt,) = run.attempts("a")
    assert (attempt.attempt, attempt.worker, attempt.host, attempt.process) == (1, "cpu-2", "node-7", 99)
    assert (attempt.finished_at, attempt.outcome) == (None, None)
    with reading(engine) as session:
        assert 0 <= session.scalar(select(now())) - attempt.started_at < 60


def test_a_queued_job_is_claimed(add_run, queue_ready_jobs):
    run = add_run({"a": []})
    queue_ready_jobs()
    assert run.states == {"a": JobState.QUEUED}
    assert run.claim("a") is not None


def test_a_job_is_claimed_once(add_run):
    run = add_run({"a": []})
    assert run.claim("a") is not None
    assert run.claim("a") is None
    assert run.job("a").attempt == 1
    assert len(run.attempts("a")) == 1


@pytest.mark.parametrize(
    "state", [JobState.WAITING, JobState.CANCELLED, JobState.SKIPPED, JobState.SUCCEEDED]
)
def test_a_job_in_another_state_is_not_claimed(add_run, state):
    run = add_run({"a": []}, columns={"a": {"state": state}})
    assert run.claim("a") is None
    assert run.states == {"a": state}


def test_an_unknown_job_is_not_claimed(add_run):
    run = add_run({"a": []})
    ghost = type(run)(run.engine, run.id, {"ghost": 987_654})
    assert ghost.claim("ghost") is None


def test_a_delayed_job_is_claimed_when_its_time_has_come(add_run, engine, later):
    with reading(engine) as session:
        in_a_minute = session.scalar(select(now())) + 60
    run = add_run({"a": []}, columns={"a": {"not_before": in_a_minute}})
    assert run.claim("a") is None
    assert run.states == {"a": JobState.READY}
    later(61)
    assert run.claim("a") is not None
    assert run.job("a").not_before is None


@pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.FAILED, RunState.SUCCEEDED])
def test_a_job_of_an_ended_run_is_not_claimed(add_run, state):
    run = add_run({"a": []}, state=state, finished_at=1.0)
    assert run.claim("a") is None
    assert run.states == {"a": JobState.READY}


def test_a_key_with_an_artifact_is_not_run_but_succeeds_and_releases_its_children(add_run, add_artifact):
    artifact = add_artifact("key-a", uri="files/a", sha256="abc")
    run = add_run({"a": [], "b": ["a"]})
    assert run.claim("a") is None
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.READY}
    assert run.all("cached") == {"a": True, "b": False}
    assert run.all("artifact_id") == {"a": artifact, "b": None}
    assert run.attempts("a") == []
    assert run.state == RunState.ACTIVE


def test_a_run_whose_last_key_has_its_artifact_succeeds(add_run, add_artifact):
    add_artifact("key-a")
    run = add_run({"a": []})
    run.claim("a")
    assert run.state == RunState.SUCCEEDED


def test_a_key_that_another_run_computes_is_left_alone(add_run, queue_ready_jobs):
    first, second = add_run({"a": []}), add_run({"a": [], "b": ["a"]})
    queue_ready_jobs()
    held = first.claim("a")
    assert second.claim("a") is None
    # no place in the window is held meanwhile
    assert second.states == {"a": JobState.READY, "b": JobState.WAITING}
    assert second.job("a").attempt == 0
    assert queue_ready_jobs() == []
    # once it is computed, the other run's job is rung for again, and finds the artifact
    first.finish(held)
    assert [bell.job_id for bell in queue_ready_jobs()] == [second.jobs["a"]]
    assert second.claim("a") is None
    assert second.states == {"a": JobState.SUCCEEDED, "b": JobState.READY}
    assert second.job("a").artifact_id == first.job("a").artifact_id


def test_inputs_are_the_parents_that_are_read_in_the_order_of_the_plan(add_run, add_artifact):
    file = {"uri": "files/x", "sha256": "abc"}
    ids = {name: add_artifact(f"key-{name}", **(file if name == "x" else {})) for name in "xyz"}
    done = {name: {"state": "succeeded", "artifact_id": ids[name], "params": {"of": name}} for name in "xyz"}
    run = add_run({"x": [], "y": [], "z": [], "a": ["y", "x"]}, after={"a": ["z"]}, columns=done)
    held = run.claim("a")
    assert held.inputs == (
        JobInput(run.jobs["y"], "sweep", {"of": "y"}, ids["y"], None, None),
        JobInput(run.jobs["x"], "sweep", {"of": "x"}, ids["x"], "files/x", "abc"),
    )
