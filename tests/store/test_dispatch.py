"""Which jobs are rung for, in which order, and how many at once."""

import pytest
from sqlalchemy import select

from db.clock import now
from db.dispatch import WINDOW, Doorbell, ring_again
from db.engine import reading, write
from db.models import JobState


def test_a_doorbell_says_what_the_message_needs(add_run, queue_ready_jobs):
    run = add_run({"a": []}, columns={"a": {"stage": "predict", "label": "blur 3"}})
    assert queue_ready_jobs() == [Doorbell(run.jobs["a"], run.id, "predict", "blur 3", "cpu")]
    assert run.states == {"a": JobState.QUEUED}
    assert run.job("a").dispatched_at is not None


def test_a_job_is_rung_for_once(add_run, queue_ready_jobs):
    add_run({"a": []})
    assert len(queue_ready_jobs()) == 1
    assert queue_ready_jobs() == []


def test_the_oldest_run_comes_first_and_its_jobs_in_the_order_of_the_plan(add_run, queue_ready_jobs):
    assert WINDOW == 64
    many = {f"j{i}": [] for i in range(40)}
    first = add_run(many, columns={name: {"key": f"first {name}"} for name in many})
    second = add_run(many, columns={name: {"key": f"second {name}"} for name in many})
    bells = queue_ready_jobs()
    assert [bell.job_id for bell in bells] == [*first.jobs.values(), *list(second.jobs.values())[:24]]
    assert list(second.states.values()) == [JobState.QUEUED] * 24 + [JobState.READY] * 16
    # one message less waits in the broker: one more is sent
    first.claim("j0")
    assert [bell.job_id for bell in queue_ready_jobs()] == [second.jobs["j24"]]


def test_each_queue_has_a_window_of_its_own(add_run, queue_ready_jobs):
    jobs = {f"j{i}": [] for i in range(130)}
    run = add_run(jobs, columns={f"j{i}": {"queue": "gpu"} for i in range(65)})
    queue_ready_jobs()
    states = list(run.states.values())
    assert states[:65] == [JobState.QUEUED] * 64 + [JobState.READY]  # gpu
    assert states[65:] == [JobState.QUEUED] * 64 + [JobState.READY]  # cpu


def test_waiting_jobs_and_ended_runs_are_not_rung_for(add_run, queue_ready_jobs):
    run = add_run({"a": [], "b": ["a"]})
    cancelled = add_run({"c": []}, state="cancelled", finished_at=1.0)
    assert [bell.job_id for bell in queue_ready_jobs()] == [run.jobs["a"]]
    assert cancelled.states == {"c": JobState.READY}


def test_a_delayed_job_is_rung_for_when_its_time_has_come(add_run, engine, later, queue_ready_jobs):
    with reading(engine) as session:
        in_a_minute = session.scalar(select(now())) + 60
    run = add_run({"a": []}, columns={"a": {"not_before": in_a_minute}})
    assert queue_ready_jobs() == []
    later(61)
    assert [bell.job_id for bell in queue_ready_jobs()] == [run.jobs["a"]]


@pytest.mark.parametrize(("seconds", "rung"), [(5, []), (11, ["a", "b"])])
def test_a_job_queued_for_too_long_is_rung_for_again(add_run, engine, later, queue_ready_jobs, seconds, rung):
    run = add_run({"a": [], "b": [], "gpu": []}, columns={"gpu": {"queue": "gpu"}})
    queue_ready_jobs()
    later(seconds)
    bells = write(engine, lambda session: ring_again(session, "cpu", 10))
    assert [bell.job_id for bell in bells] == [run.jobs[name] for name in rung]
    assert set(run.states.values()) == {JobState.QUEUED}
    # the clock starts anew
    assert write(engine, lambda session: ring_again(session, "cpu", 10)) == []


def test_a_running_job_is_not_rung_for_again(add_run, engine, later, queue_ready_jobs):
    run = add_run({"a": []})
    queue_ready_jobs()
    run.claim("a")
    later(100)
    assert write(engine, lambda session: ring_again(session, "cpu", 10)) == []


def test_jobs_of_other_code_do_not_fill_the_window_of_ours(add_run, queue_ready_jobs):
    other = add_run(
        {f"other-{i}": [] for i in range(WINDOW + 10)},
        columns={f"other-{i}": {"code": "sweep 0"} for i in range(WINDOW + 10)},
    )
    ours = add_run({f"ours-{i}": [] for i in range(5)})
    rung = {bell.job_id for bell in queue_ready_jobs()}
    assert set(ours.jobs.values()) <= rung
    assert len(rung & set(other.jobs.values())) == WINDOW
    assert queue_ready_jobs() == []
