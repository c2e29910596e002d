"""Whose job a worker takes next: weights, limits, measurements, and jobs of equal key."""

from collections import Counter

import pytest

from db.claims import claim, claim_next, others_on_host, why_not
from db.dispatch import top_up
from db.engine import read, write
from db.jobs import Outcome, Worker, finish
from db.models import JobState
from db.shares import ActiveRun, Turns

HERE = Worker("cpu-1", "host-1", 1, ("sweep 1", "measure 1"))
BESIDE = Worker("cpu-2", "host-1", 2, HERE.codes)
ELSEWHERE = Worker("cpu-3", "host-2", 3, HERE.codes)
DONE = Outcome(None, {}, 0)


@pytest.fixture
def drain(engine):
    """``drain(held, count)``: finish a claim and take the next ``count`` times; the runs that were served."""

    def drain(held, count, turns):
        served = []
        for _ in range(count):
            held = write(engine, lambda session, held=held: end(session, held, turns))
            if held is None:
                break
            served.append(held.run_id)
        return served

    def end(session, held, turns):
        following = claim_next(session, held, HERE, turns)
        assert finish(session, held, DONE)
        return following

    return drain


def start(engine, run, name, turns, worker=HERE):
    return write(engine, lambda session: claim(session, run.jobs[name], worker, turns))


def test_turns_go_round_by_weight():
    turns = Turns([ActiveRun(1, 1, {}), ActiveRun(2, 3, {})], {1: 0, 2: 0})
    order = []
    for _ in range(8):
        first = next(iter(turns))
        order.append(first.id)
        turns.served(first.id)
    assert order == [2, 1, 2, 2] * 2


def test_a_run_that_has_no_job_of_the_kind_costs_others_no_turn():
    turns = Turns([ActiveRun(1, 1, {}), ActiveRun(2, 1, {}), ActiveRun(3, 100, {})], {1: 0, 2: 0, 3: 0})
    order = []
    for _ in range(6):
        assert next(iter(turns)).id == 3, "the one that has nothing is still asked first"
        served = next(run.id for run in turns if run.id != 3)
        order.append(served)
        turns.served(served)
    assert Counter(order) == {1: 3, 2: 3}


def test_runs_share_a_process_by_their_weights(add_run, engine, drain):
    heavy = add_run({f"h{i}": [] for i in range(40)}, priority=3)
    light = add_run({f"l{i}": [] for i in range(40)})
    turns = Turns()
    served = drain(start(engine, heavy, "h0", turns), 40, turns)
    assert Counter(served) == {heavy.id: 30, light.id: 10}
    # and not first the one, then the other
    assert all(served[at : at + 8].count(light.id) == 2 for at in range(0, 40, 8))


def test_a_small_run_is_served_at_once_behind_a_huge_one(add_run, engine, drain):
    huge = add_run({f"h{i}": [] for i in range(300)})
    turns = Turns()
    held = start(engine, huge, "h0", turns)
    small = add_run({"s": []})
    turns = Turns()
    write(engine, turns.look)
    assert small.id in drain(held, 2, turns)


def test_the_next_job_is_of_the_same_stage_queue_and_code_and_in_the_order_of_the_plan(
    add_run, engine, drain
):
    others = {
        "stage": {"stage": "measure"},
        "queue": {"queue": "gpu"},
        "code": {"code": "sweep 2"},
        "late": {"not_before": 1e12},
        "waits": {"state": "waiting", "waiting_for": 1},
    }
    run = add_run({name: [] for name in (*others, "a", "b", "c")}, columns=others)
    turns = Turns()
    assert len(drain(start(engine, run, "a", turns), 5, turns)) == 2
    assert [name for name, state in run.states.items() if state == JobState.SUCCEEDED] == ["a", "b", "c"]


def test_no_more_jobs_run_at_once_than_the_limits_of_their_run_allow(add_run, engine):
    run = add_run({f"j{i}": [] for i in range(6)}, limits={"": 3, "sweep": 2})
    turns = Turns()
    held = [start(engine, run, f"j{i}", turns) for i in range(2)]
    write(engine, top_up)
    assert start(engine, run, "j2", turns) is None
    assert run.states["j2"] == JobState.READY
    # the one that ends makes room for the next, in one transaction
    with_next = write(
        engine,
        lambda session: (claim_next(session, held[0], HERE, turns), finish(session, held[0], DONE)),
    )
    assert with_next[0] is not None
    assert Counter(run.states.values())[JobState.RUNNING] == 2


def test_the_next_job_is_none_that_another_run_computes(add_run, engine, drain):
    first = add_run({"a": [], "b": []})
    second = add_run({"a": [], "b": [], "z": []}, columns={"z": {"key": "another"}})
    turns = Turns()
    start(engine, first, "a", turns, BESIDE)
    drain(start(engine, second, "z", turns), 5, turns)
    assert first.states == {"a": JobState.RUNNING, "b": JobState.SUCCEEDED}
    # ready until the results are there
    assert second.states == {"a": JobState.READY, "b": JobState.READY, "z": JobState.SUCCEEDED}
    assert second.claim("b") is None
    assert second.job("b").artifact_id == first.job("b").artifact_id


def test_twins_hold_no_place_in_the_window(add_run, engine, queue_ready_jobs):
    """64 keys that run in one run once held 64 messages of another, and 100 jobs of others waited behind them."""
    names = [f"j{i}" for i in range(64)]
    first, second = (add_run({name: [] for name in names}) for _ in range(2))
    for name in names:
        first.claim(name)
    third = add_run({f"k{i}": [] for i in range(100)})
    assert {bell.run_id for bell in queue_ready_jobs()} == {third.id}
    assert set(second.states.values()) == {JobState.READY}


def test_a_measurement_has_its_host_to_itself(add_run, engine):
    alone = {"stage": "measure", "code": "measure 1", "alone": True}
    run = add_run({"m": [], "n": [], "a": [], "b": []}, columns={"m": alone, "n": alone})
    turns = Turns()
    before = start(engine, run, "a", turns, BESIDE)
    held = start(engine, run, "m", turns)
    # it waits for what was there before it
    assert read(engine, lambda session: others_on_host(session, held, HERE)) == 1
    for name in ("b", "n"):
        assert start(engine, run, name, turns, BESIDE) is None
        assert read(engine, lambda session, name=name: why_not(session, run.jobs[name], BESIDE)).host_is_taken
    # nor does a process that is at work take another job
    following = write(engine, lambda session: claim_next(session, before, BESIDE, turns))
    assert following is None
    run.finish(before)
    assert read(engine, lambda session: others_on_host(session, held, HERE)) == 0
    # another host goes on
    assert start(engine, run, "b", turns, ELSEWHERE) is not None
    run.finish(held)
    assert start(engine, run, "n", turns, BESIDE) is not None
