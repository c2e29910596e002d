"""What of a private cluster hangs without ending: its broker, a worker's parent, a process with the database's lock."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.code import queues_of
from tasks.doorbell import FIRST, OTHERS

LOOK_SECONDS = 1.0
HUNG_SECONDS = 10.0
"""What has not moved for so long is looked at closely."""
HUNG_LOOKS = 3
"""A supervisor that was itself stopped has seen nothing in between."""
BROKER_ANSWER_SECONDS = 1.0
WORKER_ANSWER_SECONDS = 2.0
UNHEARD_QUESTIONS = 2
STARTING_SECONDS = 60.0
"""A worker that starts beside busy processes takes nothing for so long."""
WRITE_LOCK = 120
"""The byte of a database's -shm file that SQLite's one writer locks (sqlite.org/walformat.html)."""


@dataclass
class Standstill:
    """For how many looks, and since when, something has not moved."""

    since: float = 0.0
    looks: int = 0

    def note(self, *, moved: bool) -> bool:
        """Note one look; returns whether it has stood still for long."""
        if moved:
            self.looks = 0
            return False
        if self.looks == 0:
            self.since = time.monotonic()
        self.looks += 1
        return self.looks >= HUNG_LOOKS and time.monotonic() - self.since >= HUNG_SECONDS


@dataclass
class Broker:
    """Valkey as seen from outside: whether it answers, and which messages it would hand out next."""

    socket: Path
    standstill: Standstill = field(default_factory=Standstill)
    heads: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By queue and by list, of those that are not empty."""

    def hangs(self, queues: Collection[str]) -> bool:
        """Look at it; True once it has been silent for long."""
        self.heads = {}
        try:
            # without retries, which redis-py adds to the time that it may take
            with redis.Redis(
                unix_socket_path=str(self.socket),
                socket_timeout=BROKER_ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            ) as client:
                self.heads = {queue: _heads(client, queue) for queue in queues}
        except redis.RedisError:
            return self.standstill.note(moved=False)
        return self.standstill.note(moved=True)


def _heads(client: redis.Redis, queue: str) -> dict[str, bytes]:
    # a list for every code and, but for the highest, with the priority in its name
    endings = ("" if priority == 0 else f"{Channel.sep}{priority}" for priority in (FIRST, OTHERS))
    lists = [name + ending for ending in endings for name in queues_of(queue)]
    with client.pipeline(transaction=False) as pipeline:
        for name in lists:
            pipeline.lindex(name, -1)
        heads = pipeline.execute()
    return {name: head for name, head in zip(lists, heads, strict=True) if head is not None}


@dataclass
class Hearing:
    """Whether a worker's parent takes messages."""

    app: Celery
    worker: str
    """Its name in Celery."""
    began: float = field(default_factory=time.monotonic)
    heads: Mapping[str, bytes] = field(default_factory=dict)
    standstill: Standstill = field(default_factory=Standstill)
    unheard: int = 0

    def is_lost(self, heads: Mapping[str, bytes], has_idle: Callable[[], bool]) -> bool:
        """Look at its queue's next messages; True once the parent is deaf.

        A parent is deaf that leaves messages where they are for long though one of its processes has no job, and
        that then, asked twice, does not answer or says that none of its processes has a message.
        """
        moved = not self.heads or not self.heads.items() <= heads.items()
        self.heads = heads
        if not self.standstill.note(moved=moved) or time.monotonic() - self.began < STARTING_SECONDS:
            return False
        if has_idle() and not self._has_message():
            self.unheard += 1
            return self.unheard >= UNHEARD_QUESTIONS
        self.unheard = 0
        self.standstill.note(moved=True)
        return False

    def _has_message(self) -> bool:
        inspect = self.app.control.inspect([self.worker], timeout=WORKER_ANSWER_SECONDS, limit=1)
        with suppress(OperationalError, OSError, redis.RedisError):
            answer = inspect.active() or {}
            return bool(answer.get(self.worker))
        return True  # the broker is at fault


def lock_holders(database: Path, groups: Mapping[str, int]) -> list[str]:
    """Names of the process groups of which one process has SQLite's write lock; all where the system does not say."""
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        file = str(Path(f"{database}-shm").stat().st_ino)
    except OSError:
        return list(groups)
    holders = set()
    for lock in locks:
        if _is_write_lock(lock, file):
            with suppress(ProcessLookupError):
                holders.add(os.getpgid(int(lock[4])))
    return [name for name, group in groups.items() if group in holders]


def _is_write_lock(lock: list[str], file: str) -> bool:
    # 1: POSIX ADVISORY WRITE pid major:minor:inode first last; one that waits has an arrow before POSIX
    if lock[1:4:2] != ["POSIX", "WRITE"] or lock[5].rpartition(":")[2] != file:
        return False
    first, last = lock[6:8]
    return int(first) <= WRITE_LOCK and (last == "EOF" or int(last) >= WRITE_LOCK)
