"""A long run in waves: what the processes that live through it use, looked at while it lasts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import psutil
import redis
from sqlalchemy import select, text

from db.models import Attempt, Job
from harness.cluster import Cluster
from harness.graph import layered
from harness.member import Member

SAMPLE_SECONDS = 10.0
UNACKED = (b"unacked", b"unacked_index")
"""What killed workers had taken; nobody waits for it, since leases in SQL recover lost jobs."""


@dataclass(frozen=True)
class Sample:
    """What a cluster uses at one moment; by name of the process where there are several."""

    memory: dict[str, int]
    files: dict[str, int]
    connections: int


@dataclass
class Soak:
    """Submits a wave of jobs that do nothing whenever its time has come and the one before has ended."""

    cluster: Cluster
    seed: int
    waves: int
    jobs_per_wave: int
    seconds: float
    lasting: Sequence[Member]
    """Processes that are never killed."""
    began: float = field(default_factory=time.monotonic)
    submitted: int = 0
    sampled: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    def is_over(self) -> bool:
        """Whether all waves have ended; submits and takes samples on the way."""
        now = time.monotonic()
        if self.submitted > 1 and now - self.sampled > SAMPLE_SECONDS:  # the first wave only warms up
            self.sampled = now
            self.samples.append(sample(self.cluster, self.lasting))
        if self.cluster.is_active():
            return False
        if self.submitted == self.waves:
            return True
        if now - self.began >= self.submitted * self.seconds / self.waves:
            name = f"wave-{self.submitted}"
            self.cluster.submit(layered(self.jobs_per_wave, self.seed, writes=False, name=name))
            self.submitted += 1
        return False


def sample(cluster: Cluster, lasting: Sequence[Member]) -> Sample:
    """Look at the processes and at the database."""
    processes = {member.name: psutil.Process(member.process.pid) for member in lasting}
    return Sample(
        memory={name: process.memory_info().rss for name, process in processes.items()},
        files={name: process.num_fds() for name, process in processes.items()},
        connections=_connections(cluster),
    )


def _connections(cluster: Cluster) -> int:
    """How many the database has; on SQLite, how often a process of the cluster has its file open."""
    if cluster.server is not None:
        statement = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        return cluster.ask(lambda session: session.scalar(statement))
    members = [member for member in cluster.keeper.members if member.alive]
    return sum(
        _opened(process, cluster.engine.url.database) for member in members for process in member.all()
    )


def _opened(process: psutil.Process, path: str) -> int:
    try:
        return sum(file.path == path for file in process.open_files())
    except psutil.NoSuchProcess:
        return 0


def keys(cluster: Cluster) -> set[bytes]:
    """The keys of Valkey, without what killed workers had taken."""
    with redis.Redis(unix_socket_path=str(cluster.socket)) as client:
        return set(client.keys()).difference(UNACKED)


def claim_latencies(cluster: Cluster) -> list[float]:
    """Seconds from the doorbell to the first claim, in the order of the claims."""
    first = (Attempt.job_id == Job.id) & (Attempt.attempt == 1)
    waited = Attempt.started_at - Job.dispatched_at
    statement = select(waited).join(Job, first).order_by(Attempt.started_at)
    return [
        seconds for seconds in cluster.ask(lambda session: session.scalars(statement).all()) if seconds >= 0
    ]


@dataclass(frozen=True)
class Trend:
    """A quantity at the beginning and at the end: the medians of its first and of its last third."""

    first: float
    last: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Trend":
        """Of values in the order of time."""
        third = max(1, len(values) // 3)
        return cls(median(values[:third]), median(values[-third:]))

    @property
    def growth(self) -> float:
        """The last as a multiple of the first."""
        return self.last / self.first

    def shown(self, scale: float = 1.0) -> str:
        """Both, for a report."""
        return f"{self.first / scale:.3g}->{self.last / scale:.3g}"


def trends(samples: Sequence[Sample], read: Callable[[Sample], dict[str, int]]) -> dict[str, Trend]:
    """One quantity of every lasting process."""
    return {name: Trend.of([read(seen)[name] for seen in samples]) for name in read(samples[0])}
