"""Half an hour of small jobs under a storm: what lives through it uses no more at the end than at the beginning."""

import time

import pytest
from harness.cluster import Sizes
from harness.soak import Soak, Trend, claim_latencies, keys, trends
from harness.storm import Storm

MEGABYTE = 1e6
GROWTH = 1.15
"""Of memory; a leak of 4 kB per job would double it."""
OPEN_NOW = 4
"""Descriptors of a connection that is just being used; one per killed process would be many more."""
SLOWER = 3.0
"""Of claims: other work of the machine slows both ends, though not alike."""
CONNECTIONS_PER_PROCESS = 3


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_nothing_grows_while_jobs_come_and_workers_die(new_cluster, database, seed, number, say):
    """50,000 jobs in waves over 30 minutes, and kills from the first wave to the last."""
    jobs, waves = number("CHAOS_JOBS", 50_000), number("CHAOS_WAVES", 50)
    stops = number("CHAOS_DATABASE_STOPS", 5) if database == "postgresql" else 0
    storm = Storm(seed, number("CHAOS_KILLS", 60), number("CHAOS_VALKEY_KILLS", 3), stops, writing=0)
    cluster = new_cluster(database, Sizes(workers=3, concurrency=2, spared=1))
    soak = Soak(
        cluster,
        seed,
        waves,
        jobs // waves,
        seconds=60.0 * number("CHAOS_MINUTES", 30),
        lasting=[cluster.workers[0], *cluster.reconcilers],
    )
    before = wait_for_keys(cluster)
    began = time.monotonic()
    storm.rage(cluster, jobs, over=soak.is_over)

    memory = trends(soak.samples, lambda seen: seen.memory)
    files = trends(soak.samples, lambda seen: seen.files)
    connections = [seen.connections for seen in soak.samples]
    latency = Trend.of(claim_latencies(cluster))
    shown = [
        f"{name} rss={trend.shown(MEGABYTE)}MB fds={files[name].shown()}" for name, trend in memory.items()
    ]
    kills = [kill.kind for kill in cluster.kills.read()]
    say(
        f"soak, {database}: attempted={jobs} acknowledged={cluster.finished()} total={time.monotonic() - began:.0f}s"
        f" kills={len(kills)} valkey={kills.count('valkey')} postgres={kills.count('postgres')}"
        f" {' '.join(shown)} connections_max={max(connections)} claim_p50={latency.shown(1e-3)}ms"
        f" keys={len(before)}->{len(keys(cluster))} losses_limit={cluster.sizes.losses} seed={seed}"
    )
    assert cluster.finished() == jobs // waves * waves
    assert set(cluster.states()) == {"succeeded"}
    assert {member.starts for member in soak.lasting} == {1}
    assert {name: trend.growth for name, trend in memory.items() if trend.growth > GROWTH} == {}
    assert {name: trend for name, trend in files.items() if trend.last > trend.first + OPEN_NOW} == {}
    assert max(connections) <= CONNECTIONS_PER_PROCESS * processes(cluster)
    assert latency.growth < SLOWER
    assert wait_for_keys(cluster) == before


def wait_for_keys(cluster):
    """The keys of Valkey while every worker is there and none has a job."""
    cluster.wait_for(cluster.is_stuck, "idle workers")
    return keys(cluster)


def processes(cluster):
    """Those that have connections: pools, reconcilers and this one."""
    sizes = cluster.sizes
    return sizes.workers * sizes.concurrency + sizes.reconcilers + 1
