"""Kill storms: whatever is killed, nothing is lost, nothing is there twice, and the numbers are the same.

The short one belongs to the default tests; ``pytest -m storm`` runs the long ones. ``CHAOS_SEED`` chooses
the kills of a storm, ``CHAOS_JOBS``, ``CHAOS_KILLS`` and so on change its size.
"""

import os
import subprocess
import time
from dataclasses import replace

import pytest
from harness.cluster import PROGRAM, Sizes
from harness.graph import layered
from harness.oracle import assert_invariants, numbers, undisturbed
from harness.storm import Storm, report

from db.engine import open_engine

GRAPH_SEED = 1
SMALL = {
    "synthetic.images": 100,
    "synthetic.size": 35,
    "image_size": 32,
    "spectrum_size": 32,
    "shard_size": 8,
    "views": 2,
    "baselines": [],
    "architecture.width": 0.25,
    "backbone.epochs": 2,
    "backbone.batch_size": 8,
    "classifier.epochs": 1,
    "expert.epochs": 4,
    "measurement.warm_ups": 2,
    "measurement.repeats": 5,
}
"""503 jobs: every stage, at all of the paper's levels."""
WRITING = 0.48
"""What comes after the predictions, 260 of those jobs, writes rows and no files, measure aside."""
PAPER = [
    "submit",
    "full-paper",
    *(part for field in SMALL.items() for part in ("--set", "=".join(map(str, field)))),
]
SHORT = Sizes(lease_seconds=3)


@pytest.fixture(scope="session")
def computed(short_folder):
    """``computed(jobs)``: a graph of so many links, and what it computes undisturbed."""
    known = {}

    def compute(jobs):
        if jobs not in known:
            nodes = layered(jobs, GRAPH_SEED)
            known[jobs] = nodes, undisturbed(short_folder(), nodes)
        return known[jobs]

    return compute


def survives(name, cluster, run_id, oracle, storm, say):
    """See a run through a storm and report it; nothing may be lost, there twice or left behind."""
    began = time.monotonic()
    storm.rage(cluster, sum(cluster.states().values()))
    came = report(name, cluster, run_id, oracle, storm, time.monotonic() - began)
    say(came.line())
    assert_invariants(cluster, run_id, oracle)
    assert (came.lost, came.duplicated) == (0, 0)
    assert came.worker_kills >= storm.worker_kills
    assert came.kills["valkey"] >= storm.valkey_kills
    assert came.kills["postgres"] >= storm.database_stops


def test_nothing_is_lost_in_a_short_storm(new_cluster, database, computed, seed, say):
    """Every kind of kill, once at least."""
    nodes, oracle = computed(400)
    storm = Storm(seed, worker_kills=9, valkey_kills=1, database_stops=2 if database == "postgresql" else 0)
    cluster = new_cluster(database, SHORT)
    survives(f"short storm, {database}", cluster, cluster.submit(nodes), oracle, storm, say)


def breaks(name, cluster, nodes, oracle, storm, say):
    """See a graph through a storm that nobody heals after, until nothing can happen any more."""
    began = time.monotonic()
    run_id = cluster.submit(nodes)
    storm.rage(cluster, len(nodes), over=lambda: cluster.is_stuck() or not cluster.is_active())
    came = report(name, cluster, run_id, oracle, storm, time.monotonic() - began)
    say(came.line())
    assert cluster.is_active()
    assert cluster.is_stuck()
    assert came.acknowledged == came.attempted - came.lost
    assert came.lost > 0
    assert came.duplicated == 0
    with pytest.raises(AssertionError):
        assert_invariants(cluster, run_id, oracle)


def test_the_same_storm_without_a_reconciler_loses_jobs(new_cluster, computed, seed, say):
    """The control: what the storm breaks stays broken, so that the storm proves something."""
    nodes, oracle = computed(400)
    storm = Storm(seed, worker_kills=9, valkey_kills=1)
    cluster = new_cluster("sqlite", replace(SHORT, reconcilers=0))
    breaks("control of the short storm, no reconciler", cluster, nodes, oracle, storm, say)


def long_storm(database, seed, number):
    """As hard as the environment says."""
    stops = number("CHAOS_DATABASE_STOPS", 10) if database == "postgresql" else 0
    return Storm(seed, number("CHAOS_KILLS", 100), number("CHAOS_VALKEY_KILLS", 5), stops)


@pytest.mark.storm
@pytest.mark.timeout(3 * 3600)
def test_nothing_is_lost_in_a_long_storm(new_cluster, database, computed, seed, number, say):
    """20,000 jobs and a hundred killed workers."""
    nodes, oracle = computed(number("CHAOS_JOBS", 20_000))
    cluster = new_cluster(database)
    run_id = cluster.submit(nodes)
    survives(f"storm, {database}", cluster, run_id, oracle, long_storm(database, seed, number), say)


@pytest.mark.storm
@pytest.mark.timeout(3600)
def test_the_same_long_storm_without_a_reconciler_loses_jobs(
    new_cluster, database, computed, seed, number, say
):
    """Its control."""
    nodes, oracle = computed(number("CHAOS_JOBS", 20_000))
    cluster = new_cluster(database, Sizes(reconcilers=0))
    name = f"control of the storm, {database}, no reconciler"
    breaks(name, cluster, nodes, oracle, long_storm(database, seed, number), say)


@pytest.fixture(scope="session")
def paper(short_folder):
    """What the reduced paper computes undisturbed, job after job in one process."""
    home = short_folder() / "home"
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(home), "OMP_NUM_THREADS": "1"}
    subprocess.run([PROGRAM, *PAPER, "--in-process"], env=environment, cwd=home.parent, check=True)
    engine = open_engine(f"sqlite:///{home / 'orchestrator.db'}")
    yield numbers(engine, 1)
    engine.dispose()


@pytest.mark.storm
@pytest.mark.timeout(3 * 3600)
def test_the_papers_numbers_are_the_same_after_a_storm(new_cluster, database, paper, seed, number, say):
    """A real run of the whole paper; who submitted it waits through the storm and prints its tables."""
    cluster = new_cluster(database)
    submit = cluster.begin(*PAPER, "--wait")
    run_id = cluster.wait_for(cluster.newest_run, "the stored run")
    storm = replace(long_storm(database, seed, number), writing=WRITING)
    survives(f"paper, {database}", cluster, run_id, paper, storm, say)
    assert submit.process.wait(60) == 0, submit.log.read_text()
    assert f"Run {run_id} succeeded" in submit.log.read_text()
