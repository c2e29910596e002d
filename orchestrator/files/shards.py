"""Which artifacts of a run hold its test images, pristine and distorted, and their spectra."""

from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Artifact, Job, JobDependency
from early_exit.fidelity import FIDELITIES
from early_exit.splits import TEST
from early_exit.vocabulary import PRISTINE
from orchestrator.errors import UsageError, nearest

ARRAYS = {"distorted-dataset": "pixels", "spectra": "spectra"}
"""What can be exported, named like the plan that computes it: its array in an artifact."""

CORRECTED, RELEASED = "corrected", "released-spectra"

Value = TypeVar("Value", int, str)


@dataclass(frozen=True)
class Selection:
    """Some of a run's shards; None selects every kind and level, and the only seed and fidelity."""

    what: str
    kind: str | None = None
    level: int | None = None
    seed: int | None = None
    fidelity: str | None = None


@dataclass(frozen=True)
class Shard:
    """One artifact: test images, or their spectra, of one kind and level."""

    kind: str
    level: int
    seed: int | None
    """Of the noise; None if nothing about it is random."""
    fidelity: str
    """``released-spectra`` or, for all that is computed as the paper means it, ``corrected``."""
    artifact: Artifact | None
    """None if no run has computed it."""


def select_shards(session: Session, run_id: int, selection: Selection) -> list[Shard]:
    """The chosen shards, each with its artifact; ``UsageError`` says what exists, or how to compute it."""
    if selection.what not in ARRAYS:
        raise UsageError(f"unknown export '{selection.what}'.{nearest(selection.what, ARRAYS)}")
    make = f"Compute it with the same options: orchestrator submit {selection.what}"
    shards = _of_run(session, run_id, selection.what)
    if not shards:
        raise UsageError(f"run {run_id} has no {selection.what} in its plan. {make}")
    seed = _only({shard.seed for shard in shards if shard.seed is not None}, selection.seed, "seed", run_id)
    fidelity = _only({shard.fidelity for shard in shards}, _fidelity(selection), "fidelity", run_id)
    of_variant = [shard for shard in shards if shard.seed in (None, seed) and shard.fidelity == fidelity]
    chosen = [
        shard
        for shard in of_variant
        if selection.kind in (None, shard.kind) and selection.level in (None, shard.level)
    ]
    if not chosen:
        known = ", ".join(dict.fromkeys(f"{shard.kind} {shard.level}" for shard in of_variant))
        raise UsageError(f"run {run_id} has no such kind and level. It has: {known}.")
    missing = sum(shard.artifact is None for shard in chosen)
    if missing:
        why = f"{missing} of {len(chosen)} files were not needed or are not computed yet"
        raise UsageError(f"{selection.what} of run {run_id}: {why}. {make}")
    return chosen


def _of_run(session: Session, run_id: int, what: str) -> list[Shard]:
    """All shards of the test split, in the order of the plan; artifacts of other runs count."""
    jobs = session.execute(
        select(Job, Artifact)
        .outerjoin(Artifact, Artifact.key == Job.key)
        .where(Job.run_id == run_id, Job.stage.in_(("prepare", "distort", "spectra")))
        .order_by(Job.id)
    ).all()
    images = {}
    for job, artifact in jobs:
        if job.stage == "prepare" and job.params["split"] == TEST:
            images[job.id] = Shard(PRISTINE, 0, None, CORRECTED, artifact)
        elif job.stage == "distort":
            kind, level, seed = (job.params[name] for name in ("kind", "level", "seed"))
            images[job.id] = Shard(kind, level, seed, CORRECTED, artifact)
    if what == "distorted-dataset":
        return list(images.values())
    read = dict(
        session.execute(
            select(JobDependency.child_id, JobDependency.parent_id)
            .join(Job, Job.id == JobDependency.child_id)
            .where(Job.run_id == run_id, Job.stage == "spectra")
        ).all()
    )
    return [
        replace(
            images[read[job.id]],
            fidelity=RELEASED if job.params.get("form") == "released-edge" else CORRECTED,
            artifact=artifact,
        )
        for job, artifact in jobs
        if job.stage == "spectra" and job.params["split"] == TEST
    ]


def _fidelity(selection: Selection) -> str | None:
    """Which of the two fidelities of a shard is selected; images are the same in all."""
    if selection.fidelity is None:
        return None
    if selection.fidelity not in FIDELITIES:
        raise UsageError(f"unknown fidelity '{selection.fidelity}'.{nearest(selection.fidelity, FIDELITIES)}")
    spectra = selection.what == "spectra" and FIDELITIES[selection.fidelity].released_spectra
    return RELEASED if spectra else CORRECTED


def _only(there: set[Value], wanted: Value | None, option: str, run_id: int) -> Value:
    """``wanted``, or the only value."""
    known = ", ".join(str(value) for value in sorted(there))
    if wanted is None and len(there) > 1:
        raise UsageError(f"run {run_id} has more than one {option}: {known}. Choose with --{option}.")
    if wanted is not None and wanted not in there:
        raise UsageError(f"run {run_id} has no {option} {wanted}. It has: {known}.")
    return wanted if wanted is not None else min(there)
