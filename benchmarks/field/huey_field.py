"""huey on a SQLite file: two threads of one process take tasks; the last leaf of a middle enqueues it."""

import sys
import time
from pathlib import Path

from huey import SqliteHuey

from benchmarks.field import MIDDLES, NAP_SECONDS

FOLDER = Path(sys.argv[2])
huey = SqliteHuey(filename=str(FOLDER / "huey.sqlite"), fsync=True)


@huey.task()
def noop(number: int) -> int:
    """Nothing."""
    return number


@huey.task()
def mark(number: int) -> None:
    """Say that it was done."""
    time.sleep(NAP_SECONDS)
    with (FOLDER / "done").open("a") as done:
        done.write(f"{number}\n")


def run(leaves: int) -> None:
    """Enqueue and wait layer by layer, since huey knows no edges that join."""
    consumer = huey.create_consumer(workers=2, worker_type="thread", periodic=False, initial_delay=0.001)
    consumer.start()
    noop(0).get(blocking=True)
    began = time.perf_counter()
    for width in (leaves, MIDDLES, 1):
        for result in [noop(number) for number in range(width)]:
            result.get(blocking=True, backoff=1, max_delay=0.002)
    print(1000 * (time.perf_counter() - began) / (leaves + MIDDLES + 1))
    consumer.stop()


def work() -> None:
    """A consumer, until the queue is empty."""
    consumer = huey.create_consumer(workers=2, worker_type="thread", periodic=False)
    consumer.start()
    while huey.pending_count():
        time.sleep(0.05)
    consumer.stop(graceful=True)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(int(sys.argv[3]))
    elif sys.argv[1] == "seed":
        for job in range(int(sys.argv[3])):
            mark(job)
    else:
        work()
