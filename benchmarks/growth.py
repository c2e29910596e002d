"""What grows with the number of stored jobs: `python -m benchmarks.growth [--stored 10000 1000000] [--repeats 40]`.

Databases that differ only in how many jobs they hold are measured in turn, so that what else the machine does falls
on all alike. Half of the jobs belong to a run that has ended, half to one that goes on, whose leaves 20 jobs read.
Prints the median milliseconds of everything that happens at a job's end, in a reconciler's round and in a watcher's
look, and the ratio of the largest database to the smallest. Postgres is measured twice: as it is right after the
jobs were stored, without statistics, and as its autovacuum leaves it in time.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.databases import copy_database, new_postgres, vacuum
from benchmarks.graphs import Shape, store_past_run, store_run
from benchmarks.valkey import valkey_socket
from benchmarks.verbs import Hand, queue_jobs, worker_engine
from db.artifacts import ArtifactStore
from db.dispatch import forget_rings
from db.engine import open_engine, reading, write
from db.models import Run
from db.recovery import expire
from db.schema import upgrade
from orchestrator.cluster.reconcile import AUDIT_ROUNDS, Reconciler
from orchestrator.runs.progress import standing
from tasks.app import create_app

Times = dict[str, list[float]]
"""Milliseconds by what was done."""


class Subject:
    """One database that is measured, step by step."""

    def __init__(self, url: str, broker_url: str, folder: Path) -> None:
        self.url, self.times = url, defaultdict(list)
        self.hand = Hand(worker_engine(url), "growth")
        self.engine = open_engine(url)
        self.reconciler = Reconciler(self.engine, ArtifactStore(str(folder)), create_app(broker_url))
        with reading(self.engine) as session:
            self.run_id = session.scalar(select(func.max(Run.id)))

    def _timed(self, what: str, function: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = function()
        self.times[what].append(1000 * (time.perf_counter() - began))
        return result

    def step(self) -> None:
        """Everything once."""
        write(self.engine, forget_rings)
        # the whole window, every time
        jobs = self._timed("top-up", lambda: queue_jobs(self.engine))
        first, *others = [self._timed("claim", lambda job=job: self.hand.take(job)) for job in jobs[:2]]
        following, _ = self._timed("finish and claim", lambda: self.hand.finish(first, takes_next=True))
        for held in (following, *others):
            if held is not None:
                self._timed("finish", lambda held=held: self.hand.finish(held, takes_next=False))
        self._timed("expire", lambda: write(self.engine, expire))
        self.reconciler.rounds = 1
        self._timed("reconciler's round", self.reconciler.once)
        self._timed("watcher's look", lambda: standing(self.engine, self.run_id))

    def audit(self) -> None:
        """The reconciler's audit, which is rare."""
        self.reconciler.rounds = AUDIT_ROUNDS
        self._timed("round with audit", self.reconciler.once)


def fill(url: str, stored: int) -> None:
    """Store half of the jobs as ended, half as a run that goes on."""
    engine = open_engine(url)
    upgrade(engine)
    store_past_run(engine, stored // 2)
    store_run(engine, Shape(stored // 2, middles=20))
    engine.dispose()


@contextmanager
def filled(stored: list[int]) -> Iterator[dict[str, dict[int, str]]]:
    """URLs of filled databases, by kind and number of jobs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b-")))
        # what autovacuum does is done here when it is wanted
        server = stack.enter_context(new_postgres("-c autovacuum=off"))
        found: dict[str, dict[int, str]] = defaultdict(dict)
        for jobs in stored:
            found["sqlite"][jobs] = f"sqlite:///{folder / f'{jobs}.sqlite'}"
            fill(found["sqlite"][jobs], jobs)
            new = copy_database(server, "template0", f"new{jobs}")
            fill(new, jobs)
            found["postgresql, vacuumed"][jobs] = copy_database(server, f"new{jobs}", f"old{jobs}")
            vacuum(found["postgresql, vacuumed"][jobs])
            found["postgresql, new"][jobs] = new
        yield found


def show(kind: str, times: dict[int, Times]) -> None:
    """One line per verb."""
    sizes = sorted(times)
    print(f"{kind:22} " + "".join(f"{size:>12,}" for size in sizes) + "   ms, ratio")
    for what in times[sizes[0]]:
        medians = [statistics.median(times[size][what]) for size in sizes]
        line = "".join(f"{median:12.2f}" for median in medians)
        print(f"  {what:20} {line}   {medians[-1] / medians[0]:5.2f}", flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description="Cost of the engine's verbs by the number of stored jobs.")
    parser.add_argument("--stored", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with ExitStack() as stack:
        broker_url = f"redis+socket://{stack.enter_context(valkey_socket())}"
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b-")))
        for kind, urls in stack.enter_context(filled(options.stored)).items():
            subjects = {size: Subject(url, broker_url, folder) for size, url in urls.items()}
            for number in range(options.repeats):
                for subject in subjects.values():
                    subject.step()
                    if number % 5 == 0:
                        subject.audit()
            show(kind, {size: subject.times for size, subject in subjects.items()})


if __name__ == "__main__":
    main()
