"""Which jobs are rung for, in which order, and how many at once."""

import pytest
from sqlalchemy import select

from db.clock import now
from db.dispatch import WINDOW, Doorbell, has_silent, ring_again
from db.engine import read, reading, write
from db.models import JobState


def test_a_doorbell_says_what_the_message_needs(add_run, queue_ready_jobs):
    run = add_run({"a": []}, columns={"a": {"stage": "predict", "label": "blur 3"}})
    assert queue_ready_jobs() == [
        Doorbell(run.jobs["a"], run.id, "predict", "blur 3", "cpu", "sweep 1", True)
    ]
    assert run.states == {"a": JobState.QUEUED}
    assert run.job("a").dispatched_at is not None


def test_a_job_is_rung_for_once(add_run, queue_ready_jobs):
    add_run({"a": []})
    assert len(queue_ready_jobs()) == 1
    assert queue_ready_jobs() == []


def bells_of(run, bells):
    return [bell.job_id for bell in bells if bell.run_id == run.id]


def test_every_run_has_a_window_of_its_own_and_its_jobs_go_in_the_order_of_the_plan(
    add_run, queue_ready_jobs
):
    assert WINDOW == 64
    first = add_run({f"j{i}": [] for i in range(100)})
    second = add_run({f"k{i}": [] for i in range(10)})
    bells = queue_ready_jobs()
    assert bells_of(first, bells) == list(first.jobs.values())[:64]
    assert bells_of(second, bells) == list(second.jobs.values())
    # one message less waits in the broker: one more is sent
    first.claim("j0")
    assert [bell.job_id for bell in queue_ready_jobs()] == [first.jobs["j64"]]


def test_windows_are_in_proportion_to_the_weights_of_the_runs(add_run, queue_ready_jobs):
    runs = [add_run({f"{w} {i}": [] for i in range(100)}, priority=w) for w in (1, 4, 100)]
    bells = queue_ready_jobs()
    # the heaviest has 64, and none has less than 4
    assert [len(bells_of(run, bells)) for run in runs] == [4, 4, 64]


def test_a_run_that_has_few_messages_waiting_goes_before_all_others(add_run, queue_ready_jobs):
    add_run({f"j{i}": [] for i in range(10)})
    assert [bell.first for bell in queue_ready_jobs()] == [True] * 2 + [False] * 8
    add_run({"k": []})
    assert [bell.first for bell in queue_ready_jobs()] == [True]


def test_no_more_jobs_are_queued_than_the_limits_of_their_run_allow(add_run, queue_ready_jobs):
    jobs = {f"{stage} {i}": [] for stage in ("sweep", "predict") for i in range(4)}
    stages = {name: {"stage": name.split()[0]} for name in jobs}
    run = add_run(jobs, columns=stages, limits={"": 5, "sweep": 1})
    run.claim("sweep 0")
    assert bells_of(run, queue_ready_jobs()) == [run.jobs[f"predict {i}"] for i in range(4)]
    assert queue_ready_jobs() == []


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


@pytest.mark.parametrize(("seconds", "rung"), [(5, []), (11, ["a", "b", "gpu"])])
def test_a_job_queued_for_too_long_is_rung_for_again(add_run, engine, later, queue_ready_jobs, seconds, rung):
    run = add_run({"a": [], "b": [], "gpu": []}, columns={"gpu": {"queue": "gpu"}})
    queue_ready_jobs()
    later(seconds)
    assert read(engine, lambda session: has_silent(session, 10)) == bool(rung)
    bells = write(engine, lambda session: ring_again(session, 10))
    assert [bell.job_id for bell in bells] == [run.jobs[name] for name in rung]
    assert set(run.states.values()) == {JobState.QUEUED}
    # the clock starts anew
    assert write(engine, lambda session: ring_again(session, 10)) == []


def test_a_job_whose_message_waits_is_rung_for_after_twice_as_long_each_time(
    add_run, engine, later, queue_ready_jobs
):
    """Else jobs that take hours would fill the broker with messages for those behind them."""
    add_run({"a": []})
    queue_ready_jobs()
    rings = 0
    for _ in range(60):  # 11 minutes
        later(11)
        rings += len(write(engine, lambda session: ring_again(session, 10)))
    # after 10, 20, 40, and then every 80 s: 11, 22 and 44 s by a clock that goes by 11, then 88
    assert rings == 3 + (660 - 77) // 88


def test_a_running_job_is_not_rung_for_again(add_run, engine, later, queue_ready_jobs):
    run = add_run({"a": []})
    queue_ready_jobs()
    run.claim("a")
    later(100)
    assert write(engine, lambda session: ring_again(session, 10)) == []
