"""Failures: retries after a growing delay, then the job has failed and all that waits for it is skipped."""

import pytest
from sqlalchemy import select

from db.clock import now
from db.engine import reading, write
from db.jobs import Worker
from db.limits import BACKOFF_SECONDS, LEASE_SECONDS, MAX_FAILURES, MAX_LOSSES
from db.models import JobState, RunState
from db.recovery import expire, release_worker


def test_a_failure_comes_back_after_a_delay_that_doubles(add_run, engine, later):
    assert MAX_FAILURES == 3
    run = add_run({"a": [], "b": ["a"]})
    for failures, longest in ((1, 1.5), (2, 3.0)):
        assert run.fail(run.claim("a"), retry=True)
        with reading(engine) as session:
            delay = run.job("a").not_before - session.scalar(select(now()))
        # half to one and a half of 1 s, then of 2 s; a slow machine may have used up to 10 s of it
        assert longest / 3 * BACKOFF_SECONDS - 10 < delay <= longest * BACKOFF_SECONDS
        assert run.states == {"a": JobState.READY, "b": JobState.WAITING}
        assert run.job("a").failures == failures
        assert run.job("a").error == "ValueError: no"
        later(longest)
    run.do("a")
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.READY}
    assert run.job("a").error is None
    assert [attempt.outcome for attempt in run.attempts("a")] == ["failed", "failed", "succeeded"]
    assert [attempt.traceback for attempt in run.attempts("a")] == ["Traceback …", "Traceback …", None]


def test_the_third_failure_is_the_last(add_run, later):
    run = add_run({"a": [], "b": ["a"], "c": ["b"], "d": []})
    for _ in range(3):
        run.fail(run.claim("a"), retry=True)
        later(10)
    assert run.states == {
        "a": JobState.FAILED,
        "b": JobState.SKIPPED,
        "c": JobState.SKIPPED,
        "d": JobState.READY,
    }
    assert run.job("c").error == f"skipped: it depends on job {run.jobs['a']}, which failed"
    assert run.claim("a") is None
    assert run.state == RunState.ACTIVE


def test_a_failure_that_no_retry_helps_is_final_at_once(add_run):
    run = add_run({"a": [], "b": ["a"]})
    assert run.fail(run.claim("a"), retry=False)
    assert run.states == {"a": JobState.FAILED, "b": JobState.SKIPPED}
    assert run.state == RunState.FAILED


def test_jobs_beside_a_failure_go_on_and_then_the_run_has_failed(add_run):
    run = add_run({"a": [], "b": [], "c": ["a", "b"], "d": ["b"]})
    run.fail(run.claim("a"))
    run.do("b")
    assert run.states == {
        "a": JobState.FAILED,
        "b": JobState.SUCCEEDED,
        "c": JobState.SKIPPED,
        "d": JobState.READY,
    }
    assert run.job("c").waiting_for == 1  # for a alone: b is counted while c is skipped
    assert run.state == RunState.ACTIVE
    run.do("d")
    assert run.state == RunState.FAILED


def test_a_failure_in_one_run_leaves_another_runs_jobs_alone(add_run):
    one, other = add_run({"a": [], "b": ["a"]}), add_run({"a": [], "b": ["a"]})
    one.fail(one.claim("a"))
    assert other.states == {"a": JobState.READY, "b": JobState.WAITING}
    other.do("a")
    other.do("b")
    assert (one.state, other.state) == (RunState.FAILED, RunState.SUCCEEDED)


def test_what_only_comes_after_a_failed_job_is_not_skipped_with_it(add_run):
    run = add_run({"a": [], "b": [], "c": ["b"], "d": ["c"]}, after={"c": ["a"]})
    run.do("b")
    assert run.states["c"] == JobState.WAITING
    run.fail(run.claim("a"))
    assert run.states["c"] == JobState.READY
    run.do("c")
    run.do("d")
    assert run.states == dict.fromkeys("bcd", JobState.SUCCEEDED) | {"a": JobState.FAILED}
    assert run.state == RunState.FAILED


def test_what_only_comes_after_skipped_jobs_waits_for_them_no_longer(add_run):
    run = add_run(
        {"a": [], "b": ["a"], "c": ["b"], "later": [], "reader": ["c"]},
        after={"later": ["b", "c"], "reader": ["b"]},
    )
    assert run.job("later").waiting_for == 2
    run.fail(run.claim("a"))
    assert run.states == {
        "a": JobState.FAILED,
        "b": JobState.SKIPPED,
        "c": JobState.SKIPPED,
        "later": JobState.READY,
        "reader": JobState.SKIPPED,
    }
    assert run.all("waiting_for") == {"a": 0, "b": 1, "c": 1, "later": 0, "reader": 1}


def test_a_job_that_two_failures_skip_releases_what_comes_after_it_once(add_run):
    run = add_run({"a": [], "b": [], "c": ["a", "b"], "x": [], "later": []}, after={"later": ["c", "x"]})
    run.fail(run.claim("a"))
    run.fail(run.claim("b"))
    assert (run.states["later"], run.job("later").waiting_for) == (JobState.WAITING, 1)
    run.fail(run.claim("x"))
    assert run.states["later"] == JobState.READY


# ---- lost workers -------------------------------------------------------------------------------------


def test_a_lease_that_has_run_out_is_taken_back_and_charged(add_run, engine, later):
    run = add_run({"a": []})
    run.claim("a")
    assert write(engine, expire) == 0
    later(LEASE_SECONDS + 1)
    assert write(engine, expire) == 1
    job = run.job("a")
    assert (job.state, job.lease_until, job.losses, job.failures) == (JobState.READY, None, 1, 0)
    (attempt,) = run.attempts("a")
    assert attempt.outcome == "lost"
    assert attempt.finished_at is not None
    assert run.claim("a").attempt == 2


def test_a_job_that_loses_its_workers_too_often_has_failed(add_run, engine, later):
    assert MAX_LOSSES == 3
    run = add_run({"a": [], "b": ["a"]})
    for _ in range(3):
        run.claim("a")
        later(LEASE_SECONDS + 1)
        assert write(engine, expire) == 1
    assert run.states == {"a": JobState.FAILED, "b": JobState.SKIPPED}
    assert run.job("a").error == "lost its worker 3 times, the last time worker-1"
    assert run.state == RunState.FAILED


def test_failures_and_losses_are_counted_apart(add_run, engine, later):
    run = add_run({"a": []})
    for _ in range(2):
        run.fail(run.claim("a"), retry=True)
        later(10)
        run.claim("a")
        later(LEASE_SECONDS + 1)
        write(engine, expire)
    assert (run.job("a").failures, run.job("a").losses) == (2, 2)
    assert run.states == {"a": JobState.READY}


def test_what_a_supervisor_ended_itself_is_released_uncharged(add_run, engine):
    run = add_run({"a": [], "b": []})
    run.claim("a", Worker("cpu-1", "host-1", 1, ("sweep 1",)))
    run.claim("b", Worker("cpu-2", "host-1", 2, ("sweep 1",)))
    assert write(engine, lambda session: release_worker(session, "cpu-1", charged=False)) == 1
    assert run.states == {"a": JobState.READY, "b": JobState.RUNNING}
    assert run.all("losses") == {"a": 0, "b": 0}
    assert [attempt.outcome for attempt in run.attempts("a")] == ["released"]


def test_only_the_worker_of_the_last_attempt_counts_as_its_holder(add_run, engine):
    run = add_run({"a": []})
    run.claim("a", Worker("cpu-1", "host-1", 1, ("sweep 1",)))
    write(engine, lambda session: release_worker(session, "cpu-1", charged=False))
    run.claim("a", Worker("cpu-2", "host-1", 2, ("sweep 1",)))
    assert write(engine, lambda session: release_worker(session, "cpu-1", charged=False)) == 0
    assert run.states == {"a": JobState.RUNNING}


@pytest.mark.parametrize(("seconds", "taken"), [(95, 0), (121, 1)])
def test_an_attempt_past_its_deadline_is_taken_back_however_often_it_renews(
    add_run, engine, later, seconds, taken
):
    run = add_run({"a": []}, columns={"a": {"deadline_seconds": 120}})
    run.claim("a")
    later(seconds)
    with reading(engine) as session:
        run.set("a", lease_until=session.scalar(select(now())) + LEASE_SECONDS)
    assert write(engine, expire) == taken
    assert (run.job("a").failures, run.job("a").losses) == (taken, 0)
    assert run.job("a").error == ("ran longer than its deadline of 120 s" if taken else None)
