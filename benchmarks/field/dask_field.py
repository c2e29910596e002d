"""Dask distributed: two worker processes of one thread; the graph is futures that depend on futures."""

import sys
import time
from pathlib import Path

from distributed import Client, LocalCluster

from benchmarks.field import MIDDLES, NAP_SECONDS

FOLDER = Path(sys.argv[2])


def noop(number: int, inputs: object = None) -> int:
    """Nothing."""
    return number


def mark(number: int) -> None:
    """Say that it was done."""
    time.sleep(NAP_SECONDS)
    with (FOLDER / "done").open("a") as done:
        done.write(f"{number}\n")


def opened() -> Client:
    """A scheduler and its workers."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    return Client(cluster)


def run(leaves: int) -> None:
    """The whole graph at once."""
    with opened() as client:
        client.submit(noop, -1).result()
        began = time.perf_counter()
        first = client.map(noop, range(leaves), pure=False)
        middles = [client.submit(noop, k, first[k::MIDDLES], pure=False) for k in range(MIDDLES)]
        client.submit(noop, 0, middles, pure=False).result()
        print(1000 * (time.perf_counter() - began) / (leaves + MIDDLES + 1))


def work(jobs: int) -> None:
    """Submit and wait: nothing is stored outside the scheduler's memory."""
    with opened() as client:
        client.gather(client.map(mark, range(jobs), pure=False))


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(int(sys.argv[3]))
    elif sys.argv[1] == "work":
        work(int(sys.argv[3]))
