"""How long planning and storing a run takes: `python benchmarks/plan_and_store.py [JOBS …] [--postgres | --url URL]`.

Plans the demo over so many seeds and images that it has about JOBS jobs, and stores it in an empty database: a
temporary SQLite file, with --postgres a temporary server, with --url the database there. Each size has a process of
its own, whose peak of memory is printed, too.
"""

import argparse
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db.engine import open_engine, write
from db.models import Dataset
from db.schema import upgrade
from early_exit.splits import TEST, TRAIN, VALIDATION
from orchestrator.plan.paper import DatasetShape, plan
from orchestrator.plan.spec import resolve
from orchestrator.submit.store import submit
from tasks.code import releases

SIZES = (20_000, 100_000)
MOST_SEEDS = 100
SHARD = 100
SHARDS = 2
JOBS_PER_SEED = 402
JOBS_PER_SHARD = 140
"""What a seed of the demo has besides, and for every 100 images in each tenth of the dataset."""


def inputs(jobs):
    """The spec and the dataset of a run of about ``jobs`` jobs: first more seeds, then more images."""
    seeds = min(MOST_SEEDS, math.ceil(jobs / (JOBS_PER_SEED + SHARDS * JOBS_PER_SHARD)))
    shards = max(SHARDS, round((jobs / seeds - JOBS_PER_SEED) / JOBS_PER_SHARD))
    spec = resolve("demo", [f"seeds={list(range(seeds))}", f"shard_size={SHARD}", "hardware=any"])
    tenth = shards * SHARD
    return spec, DatasetShape("any", 10, {TRAIN: 8 * tenth, VALIDATION: tenth, TEST: tenth})


def measure(jobs, url):
    """Plan and store once, and print a line."""
    engine = open_engine(url)
    upgrade(engine)
    spec, dataset = inputs(jobs)
    began = time.perf_counter()
    planned = plan(spec, dataset, releases())
    stored = time.perf_counter()
    submit(engine, spec, planned, write(engine, _dataset), dataset.digest)
    ended = time.perf_counter()
    edges = sum(len(job.reads) + len(job.after) for job in planned.jobs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(
        f"{engine.dialect.name:10} {len(planned.jobs):9,} jobs {edges:9,} edges   plan {stored - began:6.2f} s   "
        f"store {ended - stored:6.2f} s   both {ended - began:6.2f} s   peak {peak:5.0f} MB"
    )


def _dataset(session):
    row = Dataset(digest="any", uri="any", classes=[], ignored_files=0, built_in=True)
    session.add(row)
    session.flush()
    return row.id


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server that lives as long as the context, as the tests start one."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "chaos"))
    from harness.postgres import PostgresServer, Programs

    folders = [Path(tempfile.mkdtemp(prefix="postgres-")) for _ in range(2)]
    server = PostgresServer(Programs.prepared(folders[0]), folders[1])
    try:
        server.create()
        server.start()
        yield server.url("postgres")
    finally:
        server.remove()
        shutil.rmtree(folders[0])


def main(options):
    """One process per size, each with an empty database."""
    for jobs in options.jobs or SIZES:
        if options.url:
            _in_a_process(jobs, options.url)
        elif options.postgres:
            with postgres() as url:
                _in_a_process(jobs, url)
        else:
            with tempfile.TemporaryDirectory() as folder:
                _in_a_process(jobs, f"sqlite:///{Path(folder, 'database.sqlite')}")


def _in_a_process(jobs, url):
    subprocess.run([sys.executable, __file__, str(jobs), "--url", url, "--here"], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", type=int)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--url")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(*options.jobs, options.url)
    else:
        main(options)
