"""What many workers do to one Postgres: `python -m benchmarks.claimants [--claimants 1 8 16 64] [--stored 10000 …]`.

Each claimant is a process that takes doorbells from one Valkey, claims, finishes and queues as a worker does, without
Celery and without computing. Of the stored jobs a fifth belongs to a run that has ended, the others are ready. Prints
jobs per second, deadlocks, and how many claimants were doing what on average, seen 20 times a second.
"""

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import redis
from harness.postgres import PostgresServer
from sqlalchemy import text

from benchmarks.databases import copy_database, new_postgres, vacuum
from benchmarks.graphs import Shape, store_past_run, store_run
from benchmarks.valkey import valkey_socket
from benchmarks.verbs import Hand, queue_jobs, worker_engine
from benchmarks.waiting import wait_for
from db.engine import open_engine
from db.schema import upgrade
from tasks.job_task import DRAIN_SECONDS, RING_SECONDS

BELLS = "bells"
LOOK_SECONDS = 0.05
ROUND_SECONDS = 1.0
SETTINGS = "-c max_connections=300"
DOING = """
SELECT coalesce(wait_event_type || ' ' || wait_event, 'computes') FROM pg_stat_activity
WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()
"""
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True)
class Contest:
    """Who takes part, on which database, for how long."""

    url: str
    socket: Path
    claimants: int
    seconds: float


def compete(contest: Contest, number: int, done: list[int], stopped: Event) -> None:
    """Answer doorbells until it is told to stop: one claimant."""
    hand = Hand(worker_engine(contest.url), f"claimant-{number}")
    with redis.Redis(unix_socket_path=str(contest.socket)) as valkey:

        def ring() -> None:
            if bells := queue_jobs(hand.engine):
                valkey.lpush(BELLS, *bells)

        while not stopped.is_set():
            answer = valkey.brpop([BELLS], timeout=1)
            if answer is not None:
                _drain(hand, int(answer[1]), ring, lambda: done.__setitem__(number, done[number] + 1))


def _drain(hand: Hand, job_id: int, ring: Callable[[], None], count: Callable[[], None]) -> None:
    """As ``tasks.job_task.drain``."""
    until, rung = time.monotonic() + DRAIN_SECONDS, 0.0
    held = hand.take(job_id)
    while held is not None:
        held, released = hand.finish(held, takes_next=time.monotonic() < until)
        count()
        if released and time.monotonic() - rung > RING_SECONDS:
            rung = time.monotonic()
            ring()
    ring()


def contend(contest: Contest) -> str:
    """Let the claimants work for some seconds, or until no job is left; returns what was seen."""
    context = multiprocessing.get_context("fork")
    done, stopped = context.Array("q", contest.claimants, lock=False), context.Event()
    processes = [
        context.Process(target=compete, args=(contest, number, done, stopped))
        for number in range(contest.claimants)
    ]
    for process in processes:
        process.start()
    try:
        return _watch(contest, lambda: sum(done))
    finally:
        stopped.set()
        for process in processes:
            process.join()


def _watch(contest: Contest, jobs: Callable[[], int]) -> str:
    engine = open_engine(contest.url).execution_options(isolation_level="AUTOCOMMIT")
    with redis.Redis(unix_socket_path=str(contest.socket)) as valkey, engine.connect() as connection:
        rounds = _rounds(contest.url, valkey)
        # all of them have connected by then, or nearly
        wait_for(lambda: next(rounds) and jobs() >= contest.claimants, "the first jobs")
        deadlocks, before, began = connection.scalar(text(DEADLOCKS)), jobs(), time.monotonic()
        doing, looks, seen = Counter(), 0, time.monotonic()
        last = before
        while time.monotonic() - began < contest.seconds and time.monotonic() - seen < 2:
            next(rounds)
            doing.update(connection.scalars(text(DOING)))
            looks += 1
            if jobs() != last:
                last, seen = jobs(), time.monotonic()
            time.sleep(LOOK_SECONDS)
        rate = (last - before) / (seen - began)
        deadlocks = connection.scalar(text(DEADLOCKS)) - deadlocks
    most = ", ".join(f"{what} {count / looks:.1f}" for what, count in doing.most_common(6))
    return f"{rate:6.0f} jobs/s, {deadlocks} deadlocks; {most}"


def _rounds(url: str, valkey: redis.Redis) -> Iterator[bool]:
    """Queues and rings once a second, as the reconciler does."""
    engine, due = open_engine(url), 0.0
    while True:
        if time.monotonic() >= due:
            due = time.monotonic() + ROUND_SECONDS
            if bells := queue_jobs(engine):
                valkey.lpush(BELLS, *bells)
        yield True


def store(server: PostgresServer, stored: int) -> None:
    """Fill the server's first database with ``stored`` jobs."""
    url = copy_database(server, "template0", "stored")
    engine = open_engine(url)
    upgrade(engine)
    store_past_run(engine, stored // 5)
    store_run(engine, Shape(stored - stored // 5, middles=0))
    engine.dispose()
    vacuum(url)


def main() -> None:
    """Read the command line; one line per number of stored jobs and claimants."""
    parser = argparse.ArgumentParser(description="Many claimants on one Postgres.")
    parser.add_argument("--claimants", type=int, nargs="+", default=[1, 8, 16, 64])
    parser.add_argument("--stored", type=int, nargs="+", default=[10_000, 1_000_000], help="jobs")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    options = parser.parse_args()
    with new_postgres(SETTINGS) as server, valkey_socket() as socket:
        for stored in options.stored:
            store(server, stored)
            for claimants in options.claimants:
                url = copy_database(server, "stored", "contest")
                found = contend(Contest(url, socket, claimants, options.seconds))
                print(f"{stored:9,} jobs stored, {claimants:3} claimants: {found}", flush=True)
                with redis.Redis(unix_socket_path=str(socket)) as valkey:
                    valkey.flushall()


if __name__ == "__main__":
    main()
