"""DBOS on Postgres: one workflow whose no-ops are child workflows of a queue with two at a time."""

import sys
import time
from pathlib import Path

from dbos import DBOS, DBOSConfig, Queue, SetWorkflowID

from benchmarks.field import MIDDLES, NAP_SECONDS

FOLDER = Path(sys.argv[2])
URL = (FOLDER / "url").read_text()
DBOS(config=DBOSConfig(name="field", system_database_url=URL, run_admin_server=False, log_level="ERROR"))
queue = Queue("field", worker_concurrency=2, polling_interval_sec=0.01)


@DBOS.workflow()
def noop(number: int) -> int:
    """Nothing."""
    return number


@DBOS.workflow()
def graph(leaves: int) -> None:
    """Enqueue and wait layer by layer."""
    for width in (leaves, MIDDLES, 1):
        for handle in [queue.enqueue(noop, number) for number in range(width)]:
            handle.get_result()


@DBOS.workflow()
def mark(number: int) -> None:
    """Say that it was done."""
    time.sleep(NAP_SECONDS)
    with (FOLDER / "done").open("a") as done:
        done.write(f"{number}\n")


if __name__ == "__main__":
    DBOS.launch()
    if sys.argv[1] == "run":
        count = int(sys.argv[3])
        began = time.perf_counter()
        graph(count)
        print(1000 * (time.perf_counter() - began) / (count + MIDDLES + 1))
    elif sys.argv[1] == "seed":
        for job in range(int(sys.argv[3])):
            with SetWorkflowID(f"mark-{job}"):
                queue.enqueue(mark, job)
    else:
        while DBOS.list_workflows(status=["ENQUEUED", "PENDING"], limit=1):
            time.sleep(0.1)
    DBOS.destroy()
