"""Everything twice or more at the same time: submits, doorbells, reconcilers, runs that want the same keys."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from harness import link
from harness.cluster import Sizes
from harness.fences import fence_off
from harness.graph import layered
from harness.link import Link
from harness.oracle import assert_invariants, numbers, undisturbed
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

import db.recovery
import orchestrator.submit.store
from db.claims import claim
from db.engine import reading, write, writing
from db.jobs import Worker
from db.models import Attempt, Job, RunState
from db.recovery import release_worker
from db.shares import Turns
from orchestrator.plan.paper import Plan
from orchestrator.plan.spec import resolve
from orchestrator.submit.store import submit
from tasks.code import releases
from tasks.variables import ARTIFACTS_VARIABLE, BROKER_VARIABLE, DATABASE_VARIABLE

GRAPH_SEED = 1
AT_A_LOCK = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
WORKER = Worker("worker-2", "host-2", 2, ("sweep 1",))
SMALL = ("synthetic.images=200", "synthetic.size=35", "image_size=32", "spectrum_size=32", "shard_size=40")


def in_threads(count, function):
    """``function()`` in so many threads at the same time; what each returned."""
    answers = [None] * count

    def work(place):
        answers[place] = function()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def rows(engine, statement):
    with reading(engine) as session:
        return session.execute(text(statement)).all()


# ---- submits ------------------------------------------------------------------------------------------


EIGHT = """
import os
import sys
import orchestrator.submit.launch
from orchestrator.main import main

children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        main()
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
"""The command line eight times, each in a process of its own that has loaded everything already."""


def test_eight_submits_of_one_spec_make_one_run(engine, database_url, tmp_path, say):
    """Each draws the dataset, stores it and plans; the broker is out of reach."""
    addresses = {
        BROKER_VARIABLE: f"redis+socket://{tmp_path / 'nobody.sock'}",
        DATABASE_VARIABLE: database_url,
        ARTIFACTS_VARIABLE: (tmp_path / "artifacts").as_uri(),
    }
    command = [sys.executable, "-c", EIGHT, "submit", "full-paper"]
    command += [part for setting in SMALL for part in ("--set", setting)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | addresses, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr
    joined = Counter(re.findall(r"Run (\d+) \((.*?)\)", done.stdout))
    assert joined == {("1", "stored"): 1, ("1", "attached to its active run"): 7}
    assert rows(engine, "SELECT id, state FROM runs") == [(1, "active")]
    assert rows(engine, "SELECT count(*) FROM datasets") == [(1,)]
    ((jobs, keys),) = rows(engine, "SELECT count(*), count(DISTINCT key) FROM jobs")
    assert jobs == keys
    say(f"eight submits on {engine.dialect.name}: runs=1 attached=7 jobs={jobs}")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
class TestPostgres:
    """Where transactions overlap, so that the worst order of two can be arranged."""

    @pytest.mark.parametrize(("index", "runs"), [(True, 1), (False, 8)])
    def test_submits_that_all_saw_no_run_make_one_and_without_the_index_eight(
        self, add_run, engine, monkeypatch, index, runs
    ):
        """The control is a database without ``one_active_run_per_identity``."""
        add_run({"a": []}, state=RunState.CANCELLED, finished_at=1.0)  # and with it the dataset
        if not index:
            drop(engine, "one_active_run_per_identity")
        barrier, find = threading.Barrier(8), orchestrator.submit.store.find

        def find_together(session, plan):
            barrier.wait(60)
            return find(session, plan)

        monkeypatch.setattr(orchestrator.submit.store, "find", find_together)
        plan, spec = Plan(releases()), resolve("demo", [])
        plan.add(Link("x"), "x", ())
        with link.installed():
            made = in_threads(8, lambda: submit(engine, spec, plan, 1, "d"))
        assert [each.attached for each in made].count(False) == runs
        assert rows(engine, "SELECT count(*) FROM runs WHERE state = 'active'") == [(runs,)]

    @pytest.mark.parametrize(("fence", "charged"), [(True, 1), (False, 2)])
    def test_two_reconcilers_that_both_saw_a_lost_worker_charge_it_once_and_without_the_fence_twice(
        self, add_run, engine, monkeypatch, fence, charged
    ):
        """The control recognizes a held job by its number alone."""
        run = add_run({"a": []})
        run.claim("a")
        if not fence:
            fence_off(put=monkeypatch.setattr)
        barrier, lose = threading.Barrier(2), db.recovery.lose

        def lose_together(*arguments):
            barrier.wait(60)
            return lose(*arguments)

        monkeypatch.setattr(db.recovery, "lose", lose_together)
        lost = partial(release_worker, worker="worker-1", charged=True)
        assert sum(in_threads(2, lambda: write(engine, lost))) == charged

    @pytest.mark.parametrize("index", [True, False])
    def test_a_key_that_two_runs_claim_at_once_is_held_once_and_without_the_index_twice(
        self, add_run, engine, index
    ):
        """The control is a database without ``one_running_job_per_key``."""
        first, second = add_run({"a": []}), add_run({"a": []})
        if not index:
            drop(engine, "one_running_job_per_key")
        with ThreadPoolExecutor() as threads:
            with writing(engine) as session:
                assert claim(session, first.jobs["a"], WORKER, Turns()) is not None
                # neither sees what the other has not committed
                other = threads.submit(second.claim, "a")
                while not (other.done() or rows(engine, AT_A_LOCK)):
                    time.sleep(0.01)
            if index:
                with pytest.raises(IntegrityError):
                    other.result()
            else:
                assert other.result() is not None


def drop(engine, index):
    write(engine, lambda session: session.execute(text(f"DROP INDEX {index}")))


# ---- doorbells, reconcilers, runs ---------------------------------------------------------------------

THREE_TIMES = """
import random
import tasks.doorbell
ring = tasks.doorbell.ring

def three_times(app, doorbells):
    doorbells = 3 * list(doorbells)
    random.shuffle(doorbells)
    return ring(app, doorbells)

tasks.doorbell.ring = three_times
"""


@pytest.fixture
def rung_three_times(tmp_path, monkeypatch):
    """Every Python process that is started from here on rings three times, in random order."""
    (tmp_path / "sitecustomize.py").write_text(THREE_TIMES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


def test_two_runs_of_the_same_keys_with_three_bells_and_two_reconcilers_compute_each_key_once(
    new_cluster, rung_three_times, tmp_path, database, say
):
    """The control is in the workers' logs: a task that does not claim would have run three times."""
    nodes = layered(60, GRAPH_SEED)
    cluster = new_cluster(database, Sizes(workers=2, reconcilers=2))
    runs = [cluster.submit(nodes), cluster.submit(nodes)]
    cluster.wait_for(lambda: not cluster.is_active(), "the end of both runs")
    oracle = undisturbed(tmp_path, nodes)
    for run in runs:
        assert_invariants(cluster, run, oracle)
        assert numbers(cluster.engine, run) == oracle
    attempts = select(Job.key, func.count()).join(Attempt, Attempt.job_id == Job.id).group_by(Job.key)
    computed = dict(map(tuple, cluster.ask(lambda session: session.execute(attempts).all())))
    assert set(computed.values()) == {1}
    executions = sum(worker.log.read_text().count("succeeded in") for worker in cluster.workers)
    assert executions >= 3 * len(nodes)
    say(
        f"doubles on {database}: keys={len(nodes)} jobs={2 * len(nodes)} computed={sum(computed.values())} "
        f"task-executions={executions} reconcilers=2"
    )
