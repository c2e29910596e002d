"""Kill storms: whatever is killed, nothing is lost, nothing is there twice, and the numbers are the same.

The short one belongs to the default tests; ``pytest -m storm`` runs the long ones. ``CHAOS_SEED`` repeats the
kills of a storm, ``CHAOS_JOBS``, ``CHAOS_KILLS`` and so on change its size.
"""

import time
from dataclasses import replace

import pytest
from harness.cluster import Sizes
from harness.graph import layered
from harness.oracle import assert_invariants, undisturbed
from harness.storm import Storm, report

GRAPH_SEED = 1
SHORT = Sizes(lease_seconds=2)


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


def survives(cluster, nodes, oracle, storm, say):
    """Run a graph in a storm and report it; nothing may be lost, there twice or left behind."""
    began = time.monotonic()
    run_id = cluster.submit(nodes)
    storm.rage(cluster, len(nodes))
    came = report("storm of links", cluster, run_id, oracle, storm, time.monotonic() - began)
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
    survives(new_cluster(database, SHORT), nodes, oracle, storm, say)


def test_the_same_storm_without_a_reconciler_loses_jobs(new_cluster, computed, seed, say):
    """The control: what the storm breaks stays broken, so that the storm proves something."""
    nodes, oracle = computed(400)
    storm = Storm(seed, worker_kills=9, valkey_kills=1)
    cluster = new_cluster("sqlite", replace(SHORT, reconcilers=0))
    began = time.monotonic()
    run_id = cluster.submit(nodes)
    storm.rage(cluster, len(nodes), over=cluster.is_stuck)
    came = report("control, no reconciler", cluster, run_id, oracle, storm, time.monotonic() - began)
    say(came.line())
    assert cluster.is_active()
    assert cluster.is_stuck()
    assert came.acknowledged < came.attempted
    assert came.lost > 0
    assert came.duplicated == 0
    with pytest.raises(AssertionError):
        assert_invariants(cluster, run_id, oracle)


@pytest.mark.storm
@pytest.mark.timeout(3 * 3600)
def test_nothing_is_lost_in_a_long_storm(new_cluster, database, computed, seed, number, say):
    """20,000 jobs and a hundred killed workers."""
    nodes, oracle = computed(number("CHAOS_JOBS", 20_000))
    stops = number("CHAOS_DATABASE_STOPS", 10) if database == "postgresql" else 0
    storm = Storm(seed, number("CHAOS_KILLS", 105), number("CHAOS_VALKEY_KILLS", 5), stops)
    survives(new_cluster(database), nodes, oracle, storm, say)
