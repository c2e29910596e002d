"""A storm: kills that a seed chooses and that finished jobs pace, and the line that reports what came of it."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from db.models import Attempt, Job, JobState
from harness.cluster import Cluster
from harness.failpoints import CHILD, FILE_POINTS, POINTS, WORKER, Kill
from harness.oracle import Numbers, numbers

FIRST, LAST = 0.02, 0.9
"""The share of finished jobs between which kills fall: a point armed at the very end would not be passed."""
RANDOM_INSTANT = (WORKER, CHILD)
WORKER_KILLS = (*RANDOM_INSTANT, *POINTS)


@dataclass(frozen=True)
class Blow:
    """What happens once ``at`` jobs have finished."""

    at: int
    kind: str
    victim: str = CHILD


@dataclass(frozen=True)
class Storm:
    """How often what is killed; ``seed`` says when."""

    seed: int
    worker_kills: int
    valkey_kills: int = 0
    database_stops: int = 0
    writing: float = 1.0
    """The share of a run's jobs, from the first, that write files: after them nobody passes two of the points."""

    def blows(self, jobs: int) -> list[Blow]:
        """Its blows on a run of so many jobs: half of the workers' at random instants, half at named points."""
        rng = random.Random(self.seed)
        half = self.worker_kills // 2
        kinds = [RANDOM_INSTANT[number % 2] for number in range(half)]
        points = [point for point in POINTS if self.writing > 0 or point not in FILE_POINTS]
        kinds += [points[number % len(points)] for number in range(self.worker_kills - half)]
        rng.shuffle(kinds)
        blows = _spread(rng, [kind for kind in kinds if kind in FILE_POINTS], int(jobs * self.writing))
        blows += _spread(rng, [kind for kind in kinds if kind not in FILE_POINTS], jobs)
        blows += _spread(rng, ["valkey"] * self.valkey_kills, jobs)
        blows += _spread(rng, ["postgres"] * self.database_stops, jobs)
        return sorted(blows, key=lambda blow: blow.at)

    def rage(self, cluster: Cluster, jobs: int, over: Callable[[], bool] | None = None) -> None:
        """Deal every blow in its turn, until ``over()``: until no run is active, where nothing is given."""
        rng = random.Random(self.seed + 1)

        def ended() -> bool:
            return not cluster.is_active() if over is None else over()

        for blow in self.blows(jobs):
            cluster.wait_for(
                lambda at=blow.at: cluster.finished() >= at or ended(), f"{blow.kind} at {blow.at} jobs"
            )
            if ended():
                return
            strike(cluster, blow, rng)
        cluster.wait_for(ended, "the end of the storm")


def _spread(rng: random.Random, kinds: Sequence[str], jobs: int) -> list[Blow]:
    step = (LAST - FIRST) / max(1, len(kinds))
    return [
        Blow(int(jobs * (FIRST + step * (number + rng.random()))), kind, rng.choice((CHILD, WORKER)))
        for number, kind in enumerate(kinds)
    ]


def strike(cluster: Cluster, blow: Blow, rng: random.Random) -> None:
    """Deal one blow; at a named point it falls when a worker passes there."""
    if blow.kind in POINTS:
        cluster.kills.arm(blow.kind, blow.victim)
        return
    if blow.kind in RANDOM_INSTANT:
        time.sleep(rng.uniform(0, 0.2))  # away from the end of a job, which was waited for
    {
        WORKER: lambda: cluster.kill_worker(rng),
        CHILD: lambda: cluster.kill_child(rng),
        "valkey": cluster.kill_valkey,
        "postgres": cluster.restart_database,
    }[blow.kind]()


@dataclass(frozen=True)
class Report:
    """What came of a storm, in the words of RabbitMQ's Jepsen runs, and what was done to the cluster."""

    name: str
    seed: int
    attempted: int
    """Jobs that were asked for."""
    acknowledged: int
    """Jobs whose success was committed."""
    lost: int
    duplicated: int
    recovered: int
    """Jobs that lost a worker and succeeded."""
    executions_again: int
    kills: Counter[str]
    recover_seconds: tuple[float, ...]
    seconds: float
    losses_limit: int

    @property
    def worker_kills(self) -> int:
        """Kills of workers, of either kind."""
        return sum(self.kills[kind] for kind in WORKER_KILLS)

    def line(self) -> str:
        """All of it, on one line."""
        kills = " ".join(f"{kind}={self.kills[kind]}" for kind in sorted(self.kills))
        return (
            f"{self.name}: attempted={self.attempted} acknowledged={self.acknowledged} lost={self.lost}"
            f" duplicated={self.duplicated} recovered={self.recovered} re-executions={self.executions_again}"
            f" worker-kills={self.worker_kills} ({kills})"
            f" recover_p50={quantile(self.recover_seconds, 0.5):.1f}s"
            f" recover_p99={quantile(self.recover_seconds, 0.99):.1f}s"
            f" total={self.seconds:.0f}s losses_limit={self.losses_limit} seed={self.seed}"
        )


def report(name: str, cluster: Cluster, run_id: int, oracle: Numbers, storm: Storm, seconds: float) -> Report:
    """Count what became of a run, against the undisturbed one."""
    found, kills = numbers(cluster.engine, run_id), cluster.kills.read()
    of_run = Job.run_id == run_id
    attempts = select(Attempt).join(Job, Job.id == Attempt.job_id).where(of_run)
    counted = select(func.count()).where(of_run)
    succeeded = counted.where(Job.state == JobState.SUCCEEDED)
    lost = select(Attempt.job_id).where(Attempt.outcome == "lost")
    return Report(
        name=name,
        seed=storm.seed,
        attempted=cluster.ask(lambda session: session.scalar(counted)),
        acknowledged=cluster.ask(lambda session: session.scalar(succeeded)),
        lost=found.lost(oracle),
        duplicated=found.duplicated(oracle),
        recovered=cluster.ask(lambda session: session.scalar(succeeded.where(Job.id.in_(lost)))),
        executions_again=cluster.ask(
            lambda session: session.scalar(
                select(func.count() - func.count(Attempt.job_id.distinct())).join(Job).where(of_run)
            )
        ),
        kills=Counter(kill.kind for kill in kills),
        recover_seconds=recovery_times(cluster.ask(lambda session: session.scalars(attempts).all()), kills),
        seconds=seconds,
        losses_limit=cluster.sizes.losses,
    )


def recovery_times(attempts: Sequence[Attempt], kills: Sequence[Kill]) -> tuple[float, ...]:
    """Seconds from the kill of an attempt's process to the start of the job's next attempt, sorted."""
    by_job = {(attempt.job_id, attempt.attempt): attempt for attempt in attempts}
    times = []
    for (job_id, number), attempt in by_job.items():
        following = by_job.get((job_id, number + 1))
        if attempt.outcome == "succeeded" or following is None:
            continue
        killed = [
            kill.time
            for kill in kills
            if kill.worker == attempt.worker
            and kill.process in (None, attempt.process)
            and attempt.started_at <= kill.time <= following.started_at
        ]
        if killed:
            times.append(following.started_at - killed[0])
    return tuple(sorted(times))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the ordered ones lie; 0 where there is none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
