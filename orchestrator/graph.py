"""Jobs that depend on jobs, and the key of each: pure, deterministic, in memory.

Labels are for people; keys (SHA-256) say what a result is computed from.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.spec import canonical_json
from tasks.params import StageParams

TRAIN, VALIDATION, TEST = "train", "validation", "test"
"""Splits, in the names of the jobs that are about one."""


@dataclass(frozen=True)
class Variant:
    """Whose result a job is, among those of one run."""

    seed: int
    fidelity: str


@dataclass(frozen=True)
class PlannedJob:
    """One job: ``reads`` and ``after`` are positions in the plan; ``after`` orders without being read."""

    params: StageParams
    label: str
    key: str
    reads: tuple[int, ...]
    after: tuple[int, ...] = ()
    variant: Variant | None = None
    """What a result stands under; None for what variants share."""


@dataclass
class Plan:
    """The jobs of one run in starting order, and where to find those that others depend on."""

    releases: Mapping[str, str]
    jobs: list[PlannedJob] = field(default_factory=list)
    targets: tuple[str, ...] = ()
    """Stages that the plan is for: wanted even where they write no rows."""
    _shared: dict[str, int] = field(default_factory=dict)

    def add(
        self,
        params: StageParams,
        label: str,
        reads: Iterable[int],
        after: Iterable[int] = (),
        variant: Variant | None = None,
    ) -> int:
        """Append a job and return its position; what variants share is there once."""
        reads = tuple(reads)
        key = _key(params, [self.jobs[position].key for position in reads], self.releases)
        if key in self._shared:
            return self._shared[key]
        if not params.writes_rows:
            self._shared[key] = len(self.jobs)
            variant = None
        self.jobs.append(PlannedJob(params, label, key, reads, tuple(after), variant))
        return len(self.jobs) - 1

    def shard_of(self, position: int) -> str:
        """The range of images that a job is about, as its label has it."""
        return self.jobs[position].label.rpartition(", ")[2]


def cut(whole: Plan, targets: tuple[str, ...]) -> Plan:
    """The jobs of some stages with all that they depend on, in the same order."""
    kept = {position for position, job in enumerate(whole.jobs) if job.params.stage in targets}
    for position in reversed(range(len(whole.jobs))):
        if position in kept:
            kept.update((*whole.jobs[position].reads, *whole.jobs[position].after))
    places = {old: new for new, old in enumerate(sorted(kept))}

    def moved(positions: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(places[position] for position in positions)

    jobs = [
        dataclasses.replace(
            whole.jobs[old], reads=moved(whole.jobs[old].reads), after=moved(whole.jobs[old].after)
        )
        for old in places
    ]
    return Plan(whole.releases, jobs, targets)


def _key(params: StageParams, input_keys: list[str], releases: Mapping[str, str]) -> str:
    made_of = {
        "stage": params.stage,
        "version": params.version,
        "params": dataclasses.asdict(params),
        "inputs": input_keys,
        "libraries": {library: releases[library] for library in params.libraries},
    }
    return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()
