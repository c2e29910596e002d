"""Transitions at the same time: in threads, whose transactions meet, and in processes."""

import itertools
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from sqlalchemy import select, text

from db.dispatch import top_up
from db.engine import read, reading, write, writing
from db.jobs import Outcome, finish, renew
from db.limits import LEASE_SECONDS
from db.models import Job, JobState, RunState
from db.recovery import expire, repair
from db.runs import cancel, retry, torn_runs

DONE = Outcome(None, {}, 0)


def in_threads(count, function):
    """``function(i)`` in ``count`` threads that start together; their results, or the first error."""
    barrier = threading.Barrier(count)
    results = [None] * count

    def work(i):
        barrier.wait()
        try:
            results[i] = function(i)
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def wait_until_blocked_or_done(engine, thread):
    """Until ``thread`` has ended, or stands at a lock in the database."""
    while thread.is_alive() and not stands_at_a_lock(engine):
        time.sleep(0.01)


def stands_at_a_lock(engine):
    if engine.dialect.name == "sqlite":
        return True  # it can do nothing else: there is one writer
    statement = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with reading(engine) as session:
        return session.scalar(text(statement)) > 0


@pytest.fixture
def during(engine):
    """``during(first, second)``: the second transaction begins while the first is not committed; what both return."""

    def overlap(first, second):
        answers = []
        with writing(engine) as session:
            answer = first(session)
            thread = threading.Thread(target=lambda: answers.append(write(engine, second)))
            thread.start()
            wait_until_blocked_or_done(engine, thread)
        thread.join()
        return (answer, *answers)

    return overlap


@pytest.fixture
def finish_during(during):
    """``finish_during(first, second)``: the second job finishes while the first one's finish is not committed."""

    def overlap(first, second):
        ended = during(
            lambda session: finish(session, first, DONE), lambda session: finish(session, second, DONE)
        )
        assert ended == (True, True)

    return overlap


def test_a_child_is_released_when_its_last_two_parents_finish_at_the_same_time(add_run, finish_during):
    run = add_run({"a": [], "b": [], "c": ["a", "b"]})
    finish_during(run.claim("a"), run.claim("b"))
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.SUCCEEDED, "c": JobState.READY}
    assert run.job("c").waiting_for == 0


def test_a_run_ends_when_its_last_two_jobs_finish_at_the_same_time(add_run, finish_during):
    run = add_run({"a": [], "b": []})
    finish_during(run.claim("a"), run.claim("b"))
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.SUCCEEDED}
    assert run.state == RunState.SUCCEEDED


def test_eight_parents_in_threads_release_their_common_children_once(add_run, engine):
    parents = [f"p{i}" for i in range(8)]
    children = [f"c{i}" for i in range(5)]
    run = add_run({**{name: [] for name in parents}, **dict.fromkeys(children, parents)})
    held = [run.claim(name) for name in parents]
    assert in_threads(8, lambda i: run.finish(held[i])) == [True] * 8
    for name in children:
        assert (run.states[name], run.job(name).waiting_for) == (JobState.READY, 0)


def test_one_of_eight_claims_at_once_gets_the_job(add_run, engine):
    run = add_run({"a": []})
    claims = in_threads(8, lambda _: run.claim("a"))
    assert sum(held is not None for held in claims) == 1
    assert run.job("a").attempt == 1


def test_a_read_sees_one_moment_of_the_database(add_run, engine):
    run = add_run({"a": [], "b": ["a"]})
    states = select(Job.state).order_by(Job.id)
    with reading(engine) as session:
        before = session.scalars(states).all()
        run.do("a")
        assert session.scalars(states).all() == before == ["ready", "waiting"]


def test_queues_topped_up_at_the_same_time_ring_for_each_job_once(add_run, engine):
    jobs = {f"j{i}": [] for i in range(100)}
    run = add_run(jobs)
    bells = [bell.job_id for some in in_threads(4, lambda _: write(engine, top_up)) for bell in some]
    assert sorted(bells) == sorted(set(bells))
    assert set(bells) <= set(run.jobs.values())
    assert list(run.states.values()).count(JobState.QUEUED) == len(bells) >= 64


# ---- a repair beside the end of another run -----------------------------------------------------------


@pytest.fixture
def shared(add_run):
    """A run whose reader b has found a's file bad; another that shares it, its last job, which runs; and the repair."""
    run = add_run({"a": [], "b": ["a"]})
    run.do("a")
    found = {"state": "succeeded", "cached": True, "artifact_id": run.job("a").artifact_id}
    other = add_run({"a": [], "last": []}, columns={"a": found})
    reader, last = run.claim("b"), other.claim("last")
    return other, last, lambda session: repair(session, reader, reader.inputs[0])


def test_a_run_does_not_succeed_while_its_input_is_set_aside(shared, during, engine):
    other, last, repair_it = shared
    assert during(repair_it, lambda session: finish(session, last, DONE)) == (True, True)
    assert (other.state, other.states["a"]) == (RunState.ACTIVE, JobState.READY)
    other.do("a")
    assert other.state == RunState.SUCCEEDED
    assert read(engine, torn_runs) == []


def test_an_input_that_is_set_aside_stays_with_a_run_that_succeeds_at_the_same_time(shared, during):
    other, last, repair_it = shared
    bad = other.job("a").artifact_id
    assert during(lambda session: finish(session, last, DONE), repair_it) == (True, True)
    assert other.state == RunState.SUCCEEDED
    assert (other.states["a"], other.job("a").artifact_id) == (JobState.SUCCEEDED, bad)


def test_a_cancel_beside_a_repair_leaves_nothing_open(shared, during, engine):
    other, _, repair_it = shared
    assert during(repair_it, lambda session: cancel(session, other.id)) == (True, 2)
    assert set(other.states.values()) == {JobState.CANCELLED}
    assert write(engine, lambda session: retry(session, other.id)) == 2


def test_a_repair_beside_a_cancel_reopens_nothing(shared, during):
    other, _, repair_it = shared
    assert during(lambda session: cancel(session, other.id), repair_it) == (1, True)
    assert other.states == {"a": JobState.SUCCEEDED, "last": JobState.CANCELLED}


def test_two_repairs_of_one_input_at_the_same_time_do_not_deadlock(add_run, during):
    run = add_run({"a": [], "b": ["a"], "c": ["a"]})
    run.do("a")
    readers = [run.claim(name) for name in "cb"]
    first, second = (
        partial(lambda held, session: repair(session, held, held.inputs[0]), it) for it in readers
    )
    assert during(first, second) == (True, True)
    assert run.states == {"a": JobState.READY, "b": JobState.WAITING, "c": JobState.WAITING}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_expire_leaves_a_job_alone_that_another_transaction_is_changing(add_run, engine, later):
    """On SQLite one transaction writes at a time, and there is nothing to leave alone."""
    run = add_run({"a": [], "b": []})
    held = run.claim("a")
    run.claim("b")
    later(LEASE_SECONDS + 1)
    with writing(engine) as frozen:
        assert renew(frozen, held)
        # if it waited for a, it would wait forever
        assert write(engine, expire) == 1
    assert run.states == {"a": JobState.RUNNING, "b": JobState.READY}


WORKER_PROCESSES = """
import os
import sys
from sqlalchemy import select
from db.dispatch import top_up
from db.engine import open_engine, reading, write
from db.claims import claim
from db.jobs import Outcome, Worker, finish
from db.models import Job, JobState, Run, RunState
from db.results.tables import Temperature
from db.shares import Turns

ROWS = {Temperature: [{"exit": k, "expert": "pristine", "temperature": 1.0} for k in (1, 2, 3, 4)]}
DONE = Outcome(None, ROWS, 1)


def work(engine, me):
    turns = Turns()
    while True:
        with reading(engine) as session:
            active = session.scalar(select(Run.id).where(Run.state == RunState.ACTIVE))
            ready = select(Job.id).where(Job.state.in_((JobState.READY, JobState.QUEUED)))
            jobs = session.scalars(ready.order_by(Job.id)).all()
        if active is None:
            return
        for job_id in jobs:
            held = write(engine, lambda session: claim(session, job_id, me, turns))
            if held is not None:
                done = write(engine, lambda session: finish(session, held, DONE))
                os.write(1, f"{done}\\n".encode())  # whole lines: eight processes write
                write(engine, top_up)


children = []
for i in range(8):
    child = os.fork()
    if child == 0:
        work(open_engine(sys.argv[1]), Worker(f"cpu-{i}", "host", os.getpid(), ("sweep 1",)))
        sys.exit()
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_eight_processes_write_without_a_locked_database(add_run, engine, database_url):
    layers = [[f"{layer}.{i}" for i in range(10)] for layer in range(4)]
    graph = {name: [] for name in layers[0]}
    for above, below in itertools.pairwise(layers):
        graph |= {name: above[i % 2 :: 2] for i, name in enumerate(below)}  # five parents each
    run = add_run(graph)
    command = [sys.executable, "-c", WORKER_PROCESSES, database_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True"] * 40
    assert set(run.states.values()) == {JobState.SUCCEEDED}
    assert run.state == RunState.SUCCEEDED
    with reading(engine) as session:
        assert session.scalar(text("SELECT count(*) FROM temperatures")) == 40 * 4
        assert session.scalar(text("SELECT count(*) FROM attempts")) == 40
