"""How soon a ready job begins on an idle cluster: `python -m benchmarks.latency [--runs 200]`.

Runs of three jobs, each reading the one before, are stored and rung for one after another, with a pause in between
that lets every process go idle. Prints median, 99th percentile and longest time from the commit that made the first
job ready to its first instruction, and from a parent's first instruction to its child's: all that a job costs when
jobs wait for each other.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Sequence

from benchmarks.cluster import Cluster, running
from benchmarks.graphs import Shape, store_run
from benchmarks.noop import MOMENT, told
from benchmarks.waiting import wait_for

CHAIN = Shape(leaves=1, middles=1)
PAUSE_SECONDS = (0.2, 0.4)


def moments(cluster: Cluster) -> tuple[float, ...]:
    """When a run's first job was ready, and when each of its jobs began."""
    cluster.times.write_bytes(b"")
    store_run(cluster.engine, CHAIN)
    ready = time.time()
    cluster.dispatch()
    wait_for(lambda: cluster.times.stat().st_size == CHAIN.jobs * MOMENT.size, "a run's end")
    # at random, so that it does not fall into step with the reconciler's rounds
    time.sleep(random.uniform(*PAUSE_SECONDS))
    return (ready, *told(cluster.times))


def show(what: str, seconds: Sequence[float]) -> None:
    """One line of milliseconds."""
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    p50, p99, longest = (1000 * value for value in (percentiles[49], percentiles[98], max(seconds)))
    print(
        f"{what}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms, of {len(seconds)}", flush=True
    )


def measure(database: str, runs: int) -> None:
    """Both latencies on one database."""
    with running(database) as cluster:
        for _ in range(10):  # a process opens its connections at its first job
            moments(cluster)
        taken = [moments(cluster) for _ in range(runs)]
    show(f"{database:10} ready to first instruction ", [began - ready for ready, began, *_ in taken])
    handed_on = [after - before for _, *began in taken for before, after in itertools.pairwise(began)]
    show(f"{database:10} from a parent to its child  ", handed_on)


def main() -> None:
    """Read the command line and measure on each database."""
    parser = argparse.ArgumentParser(description="Latency of a job on an idle cluster.")
    parser.add_argument("--runs", type=int, default=200, help="runs of three jobs, one after another")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    options = parser.parse_args()
    for database in options.database or ("sqlite", "postgresql"):
        measure(database, options.runs)


if __name__ == "__main__":
    main()
