"""Jobs that depend on jobs, and the key of each: pure, deterministic, in memory.

Labels are for people; keys (SHA-256) say what a result is computed from.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.errors import UsageError
from orchestrator.plan.spec import canonical_json
from tasks.params import StageParams


class TooManyJobs(UsageError):
    """A plan has more jobs than it may have."""


@dataclass(frozen=True)
class Variant:
    """What tells the results of one run apart."""

    seed: int
    fidelity: str


@dataclass(frozen=True)
class Shard:
    """Some images of a split, from ``start`` to before ``stop``."""

    split: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.split} {self.start}–{self.stop - 1}"


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One job: ``reads`` and ``after`` are positions in the plan; ``after`` orders without being read."""

    params: StageParams
    label: str
    key: str
    reads: tuple[int, ...]
    after: tuple[int, ...] = ()
    variant: Variant | None = None
    """Whose result it is; None for jobs that variants share."""
    shard: Shard | None = None
    """The images it processes; None if it processes more than one shard."""


@dataclass
class Plan:
    """The jobs of one run in starting order."""

    releases: Mapping[str, str]
    most: int | None = None
    """How many jobs it may have; None for any number."""
    jobs: list[PlannedJob] = field(default_factory=list)
    targets: frozenset[int] = frozenset()
    """Positions of the jobs that were asked for, which are wanted even if they write no rows."""
    _shared: dict[str, int] = field(default_factory=dict)

    def add(
        self,
        params: StageParams,
        label: str,
        reads: Iterable[int],
        after: Iterable[int] = (),
        *,
        variant: Variant | None = None,
        shard: Shard | None = None,
    ) -> int:
        """Append a job and return its position; a job that variants share is added once.

        Raises ``TooManyJobs`` as soon as there are more than ``most``.
        """
        reads = tuple(reads)
        key = _key(params, [self.jobs[position].key for position in reads], self.releases)
        # jobs that write rows are never shared: each row stands under one variant
        if key in self._shared:
            return self._shared[key]
        if not params.writes_rows:
            self._shared[key] = len(self.jobs)
            # a shared job stands under no variant, whichever asked for it first
            variant = None
        if len(self.jobs) == self.most:
            raise TooManyJobs(f"more than {self.most:,} jobs")
        self.jobs.append(PlannedJob(params, label, key, reads, tuple(after), variant, shard))
        return len(self.jobs) - 1


def cut(whole: Plan, is_target: Callable[[StageParams], bool]) -> Plan:
    """The target jobs and everything they read, in the same order.

    A job that came after one that is left out comes after that one's parents instead.
    """
    targets = {position for position, job in enumerate(whole.jobs) if is_target(job.params)}
    kept = set(targets)
    # backwards, since what a job reads is always before it
    for position in reversed(range(len(whole.jobs))):
        if position in kept:
            kept.update(whole.jobs[position].reads)
    places = {old: new for new, old in enumerate(sorted(kept))}
    jobs = []
    for old in places:
        job = whole.jobs[old]
        reads = tuple(places[parent] for parent in job.reads)
        after = {places[stood] for stood in _standing_in(whole, kept, job.after)} - set(reads)
        order = tuple(sorted(after))
        # not dataclasses.replace, which takes six times as long
        jobs.append(PlannedJob(job.params, job.label, job.key, reads, order, job.variant, job.shard))
    return Plan(whole.releases, whole.most, jobs, frozenset(places[target] for target in targets))


def _standing_in(whole: Plan, kept: set[int], positions: Iterable[int]) -> set[int]:
    """The kept jobs among ``positions``, and for every other one its nearest kept ancestors."""
    # each ancestor once: many jobs share theirs
    seen: set[int] = set()
    waiting = list(positions)
    while waiting:
        position = waiting.pop()
        if position not in seen and position not in kept:
            job = whole.jobs[position]
            waiting += (*job.reads, *job.after)
        seen.add(position)
    return seen & kept


def _key(params: StageParams, input_keys: list[str], releases: Mapping[str, str]) -> str:
    made_of = {
        "stage": params.stage,
        "version": params.version,
        "params": params,
        "inputs": input_keys,
        "libraries": {library: releases[library] for library in params.libraries},
    }
    return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()
