"""Whole runs: cancelled at once, tried again, and what other code leaves alone."""

import pytest
from sqlalchemy.exc import IntegrityError

from db.engine import read, write
from db.jobs import Worker, fail, put_back, renew, saved_progress
from db.models import JobState, RunState
from db.recovery import busy_workers, expire, release_processes, release_worker
from db.runs import cancel, other_codes, retry, torn_runs, working_runs

GRAPH = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


@pytest.fixture
def cancel_it(engine):
    """``cancel_it(run)``."""
    return lambda run: write(engine, lambda session: cancel(session, run.id))


@pytest.fixture
def retry_it(engine):
    """``retry_it(run)``."""
    return lambda run: write(engine, lambda session: retry(session, run.id))


@pytest.fixture
def half_done(add_run):
    """A run in which a is done, b is running, c is ready and d waits; and the hold on b."""
    run = add_run(GRAPH)
    run.do("a")
    return run, run.claim("b")


def test_a_cancelled_run_keeps_what_is_finished_and_ends_the_rest_at_once(half_done, cancel_it):
    run, _ = half_done
    assert cancel_it(run) == 3
    assert run.state == RunState.CANCELLED
    assert run.states == {
        "a": JobState.SUCCEEDED,
        "b": JobState.CANCELLED,
        "c": JobState.CANCELLED,
        "d": JobState.CANCELLED,
    }
    assert run.attempts("b")[0].outcome == "cancelled"


def test_a_running_attempt_of_a_cancelled_run_writes_nothing_more(half_done, cancel_it, engine):
    run, held = half_done
    cancel_it(run)
    assert not write(engine, lambda session: renew(session, held))
    assert not write(engine, lambda session: saved_progress(session, held))
    assert not run.finish(held)
    assert not run.fail(held, retry=True)
    assert not write(engine, lambda session: put_back(session, held, "released"))
    assert write(engine, expire) == 0
    assert run.states["b"] == JobState.CANCELLED


def test_nothing_of_a_cancelled_run_is_claimed_or_rung_for(half_done, cancel_it, queue_ready_jobs):
    run, _ = half_done
    cancel_it(run)
    assert queue_ready_jobs() == []
    assert [run.claim(name) for name in ("b", "c", "d")] == [None, None, None]


def test_a_run_that_has_ended_is_not_cancelled(add_run, cancel_it):
    run = add_run({"a": []})
    run.do("a")
    assert cancel_it(run) is None
    assert run.state == RunState.SUCCEEDED


def test_a_cancelled_run_is_retried_from_where_it_was(half_done, cancel_it, retry_it):
    run, held = half_done
    cancel_it(run)
    assert retry_it(run) == 3
    assert run.state == RunState.ACTIVE
    assert run.states == {
        "a": JobState.SUCCEEDED,
        "b": JobState.READY,
        "c": JobState.READY,
        "d": JobState.WAITING,
    }
    assert run.all("waiting_for") == {"a": 0, "b": 0, "c": 0, "d": 2}
    again = run.claim("b")
    assert again.attempt == 2
    assert not run.finish(held), "the attempt from before the cancel is fenced out"
    assert run.finish(again)
    run.do("c")
    run.do("d")
    assert run.state == RunState.SUCCEEDED


def test_a_failed_run_is_retried_with_all_that_was_skipped(add_run, retry_it):
    run = add_run(GRAPH, columns={"a": {"losses": 2}})
    run.fail(run.claim("a"))
    assert run.state == RunState.FAILED
    assert retry_it(run) == 4
    assert run.states == dict.fromkeys("bcd", JobState.WAITING) | {"a": JobState.READY}
    assert set(run.all("error").values()) == {None}
    assert (run.job("a").failures, run.job("a").losses) == (0, 0)
    for name in "abcd":
        run.do(name)
    assert run.state == RunState.SUCCEEDED


def test_what_comes_after_a_job_that_is_tried_again_waits_for_it_again(add_run, retry_it):
    run = add_run({"a": [], "b": ["a"], "done": [], "later": []}, after={"done": ["a"], "later": ["a", "b"]})
    run.fail(run.claim("a"))
    run.do("done")
    run.fail(run.claim("later"))
    assert run.state == RunState.FAILED
    assert retry_it(run) == 3
    assert run.states == {
        "a": JobState.READY,
        "b": JobState.WAITING,
        "done": JobState.SUCCEEDED,
        "later": JobState.WAITING,
    }
    assert run.all("waiting_for") == {"a": 0, "b": 1, "done": 0, "later": 2}
    for name in ("a", "b", "later"):
        run.do(name)
    assert run.state == RunState.SUCCEEDED


def test_a_retry_of_a_run_that_succeeded_or_is_active_does_nothing(add_run, retry_it):
    run = add_run({"a": []})
    assert retry_it(run) == 0
    run.do("a")
    assert retry_it(run) == 0
    assert run.states == {"a": JobState.SUCCEEDED}


def test_a_run_that_ended_with_an_open_job_is_found_and_retried(add_run, engine, retry_it):
    run = add_run({"a": [], "b": []})
    for name in "ab":
        run.do(name)
    assert read(engine, torn_runs) == []
    run.set("a", state="waiting", artifact_id=None)
    assert read(engine, torn_runs) == [run.id]
    assert retry_it(run) == 1
    assert run.claim("a") is None, "its artifact is there"
    assert run.state == RunState.SUCCEEDED


def test_a_run_is_not_retried_beside_an_active_one_of_the_same_spec(add_run, cancel_it, retry_it):
    run = add_run({"a": []}, identity="same")
    cancel_it(run)
    add_run({"a": []}, identity="same")
    with pytest.raises(IntegrityError):
        retry_it(run)
    assert run.state == RunState.CANCELLED
    assert run.states == {"a": JobState.CANCELLED}


def test_saved_progress_forgets_earlier_losses(add_run, engine):
    run = add_run({"a": []}, columns={"a": {"losses": 2, "failures": 1}})
    held = run.claim("a")
    assert write(engine, lambda session: saved_progress(session, held))
    assert (run.job("a").losses, run.job("a").failures) == (0, 1)
    assert write(engine, lambda session: release_worker(session, "worker-1", charged=True)) == 1
    assert run.states == {"a": JobState.READY}


def test_a_job_of_other_code_is_left_alone(add_run, engine):
    run = add_run({"a": []}, columns={"a": {"code": "sweep 2"}})
    assert run.claim("a") is None
    assert run.states == {"a": JobState.READY}
    assert read(engine, lambda session: other_codes(session, run.id, ("sweep 1",))) == ["sweep 2"]
    assert read(engine, lambda session: working_runs(session, ("sweep 1",))) == []
    assert read(engine, lambda session: working_runs(session, ("sweep 1", "sweep 2"))) == [run.id]
    assert run.claim("a", Worker("worker-2", "host", 1, ("sweep 2",))) is not None


def test_jobs_of_killed_processes_run_again_and_the_living_keep_theirs(add_run, engine):
    run = add_run({"a": [], "b": [], "c": []})
    for process, name in enumerate("abc"):
        run.claim(name, Worker("cpu" if name < "c" else "other", "host", process, ("sweep 1",)))
    assert read(engine, busy_workers) == {"cpu": {0, 1}, "other": {2}}
    assert write(engine, lambda session: release_processes(session, "cpu", {1, 2})) == 1
    assert run.states == {"a": JobState.RUNNING, "b": JobState.READY, "c": JobState.RUNNING}
    assert run.job("b").losses == 1


def test_a_failure_and_a_loss_count_apart(add_run, engine):
    run = add_run({"a": []})
    run.fail(run.claim("a"), retry=True)
    run.set("a", not_before=None)
    run.claim("a")
    write(engine, lambda session: release_worker(session, "worker-1", charged=True))
    held = run.claim("a")
    assert (run.job("a").failures, run.job("a").losses) == (1, 1)
    write(engine, lambda session: fail(session, held, "no", None, retry=True))
    assert run.states == {"a": JobState.READY}
    assert [attempt.outcome for attempt in run.attempts("a")] == ["failed", "lost", "failed"]
