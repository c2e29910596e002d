"""What the engine adds to a job that does nothing: `python -m benchmarks.engine [--jobs 2000] [--repeats 5]`.

Stores 2,000 no-ops that 20 more read, which one more reads, and lets one worker of two processes run them; beside
it, in turn, the same worker executes as many messages of a task without the engine. Both are timed from the first
message, by the database's clock and the machine's. Prints medians, and what each process computed per job.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from kombu.entity import Queue
from sqlalchemy import func, select

from benchmarks.cluster import Cluster, running
from benchmarks.graphs import Shape, store_run
from benchmarks.noop import MOMENT, told
from benchmarks.waiting import wait_for
from db.clock import now
from db.engine import reading
from db.models import Attempt, Job, JobState, Run, RunState

Measured = tuple[float, dict[str, float]]
"""Milliseconds per job from the first message to the last end, and those computed by each part of the cluster."""


def through_engine(cluster: Cluster, shape: Shape) -> Measured:
    """Run a graph of no-ops."""
    run_id = store_run(cluster.engine, shape)
    before = cluster.cpu_seconds()
    with reading(cluster.engine) as session:
        began = session.scalar(select(now()))
    cluster.dispatch()
    wait_for(lambda: _has_ended(cluster, run_id), f"run {run_id}")
    with reading(cluster.engine) as session:
        attempts = select(func.max(Attempt.finished_at), func.count()).join(Job, Job.id == Attempt.job_id)
        ended, count = session.execute(attempts.where(Job.run_id == run_id)).one()
        done = session.scalar(
            select(func.count()).where(Job.run_id == run_id, Job.state == JobState.SUCCEEDED)
        )
    assert count == done == shape.jobs, f"{shape.jobs} jobs, {done} done in {count} attempts"
    return _per_job(cluster, before, ended - began, shape.jobs)


def _has_ended(cluster: Cluster, run_id: int) -> bool:
    with reading(cluster.engine) as session:
        return session.scalar(select(Run.state).where(Run.id == run_id)) != RunState.ACTIVE


def through_celery(cluster: Cluster, shape: Shape) -> Measured:
    """Execute as many messages of a task that does nothing."""
    cluster.times.write_bytes(b"")
    before, began = cluster.cpu_seconds(), time.time()
    queue = Queue("bare")
    with cluster.app.producer_or_acquire() as producer:
        for number in range(shape.jobs):
            cluster.app.send_task("bare", args=(number,), queue=queue, producer=producer, retry=False)
    wait_for(lambda: cluster.times.stat().st_size == shape.jobs * MOMENT.size, "the bare tasks")
    return _per_job(cluster, before, max(told(cluster.times)) - began, shape.jobs)


def _per_job(cluster: Cluster, before: dict[str, float], seconds: float, jobs: int) -> Measured:
    busy = {part: 1000 * (after - before[part]) / jobs for part, after in cluster.cpu_seconds().items()}
    return 1000 * seconds / jobs, busy


WAYS: dict[str, Callable[[Cluster, Shape], Measured]] = {
    "bare Celery": through_celery,
    "engine": through_engine,
}


def compare(database: str, shape: Shape, repeats: int) -> None:
    """Run both ways in turn on one database, and print their medians."""
    with running(database) as cluster:
        for measure in WAYS.values():  # a process opens its connections at its first job
            measure(cluster, Shape(40, 2))
        found: dict[str, list[Measured]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way, measure in WAYS.items():
                found[way].append(measure(cluster, shape))
    medians = {}
    for way, measured in found.items():
        taken = [milliseconds for milliseconds, _ in measured]
        medians[way] = statistics.median(taken)
        busy = {part: statistics.median(parts[part] for _, parts in measured) for part in measured[0][1]}
        computed = ", ".join(f"{part} {milliseconds:.2f}" for part, milliseconds in busy.items())
        print(
            f"{database:10} {way:11} {medians[way]:6.2f} ms per job"
            f" ({min(taken):.2f} to {max(taken):.2f}), {1000 / medians[way]:5.0f} jobs/s; computed: {computed}"
        )
    print(f"{database:10} engine / bare Celery: {medians['engine'] / medians['bare Celery']:.2f}", flush=True)


def main() -> None:
    """Read the command line and compare on each database."""
    parser = argparse.ArgumentParser(description="Cost of a no-op job, beside bare Celery.")
    parser.add_argument("--jobs", type=int, default=2000, help="leaves; 20 jobs read them, one reads those")
    parser.add_argument("--repeats", type=int, default=5, help="how often each way is measured, in turn")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    options = parser.parse_args()
    for database in options.database or ("sqlite", "postgresql"):
        compare(database, Shape(options.jobs), options.repeats)


if __name__ == "__main__":
    main()
