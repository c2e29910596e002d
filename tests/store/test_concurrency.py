"""Transitions at the same time: in threads, whose transactions meet, and in processes."""

import itertools
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import select, text

from db.dispatch import top_up
from db.engine import reading, write, writing
from db.jobs import Outcome, finish
from db.models import Job, JobState, RunState

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
def finish_during(engine):
    """``finish_during(first, second)``: the second job finishes while the first one's finish is not committed."""

    def overlap(first, second):
        with writing(engine) as session:
            assert finish(session, first, DONE)
            thread = threading.Thread(target=lambda: write(engine, lambda other: finish(other, second, DONE)))
            thread.start()
            wait_until_blocked_or_done(engine, thread)
        thread.join()

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
