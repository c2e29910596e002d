"""Prefect with its temporary local server: one flow, tasks submitted to two threads, edges by futures."""

import sys
import time
from pathlib import Path

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from benchmarks.field import MIDDLES, NAP_SECONDS

FOLDER = Path(sys.argv[2])


@task
def noop(number: int, inputs: object = None) -> int:
    """Nothing."""
    return number


@task(persist_result=True, cache_key_fn=lambda context, arguments: f"{FOLDER.name}-{arguments['number']}")
def mark(number: int) -> int:
    """Say that it was done."""
    time.sleep(NAP_SECONDS)
    with (FOLDER / "done").open("a") as done:
        done.write(f"{number}\n")
    return number


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def graph(leaves: int) -> None:
    """The whole graph."""
    first = [noop.submit(number) for number in range(leaves)]
    middles = [noop.submit(k, first[k::MIDDLES]) for k in range(MIDDLES)]
    noop.submit(0, middles).result()


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def marks(jobs: int) -> None:
    """The jobs of the kill test."""
    for future in [mark.submit(number) for number in range(jobs)]:
        future.result()


if __name__ == "__main__":
    count = int(sys.argv[3])
    if sys.argv[1] == "run":
        graph(0 + MIDDLES)  # starts the server
        began = time.perf_counter()
        graph(count)
        print(1000 * (time.perf_counter() - began) / (count + MIDDLES + 1))
    elif sys.argv[1] == "work":
        marks(count)
