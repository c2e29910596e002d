"""What a run is made from: everything needed to judge or reproduce its numbers."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Dataset, Image, Run, RunState
from early_exit.fidelity import FIDELITIES
from early_exit.kinds import Kinds
from early_exit.splits import TEST


@dataclass(frozen=True)
class Manifest:
    """One run's spec, code, packages, dataset and machine."""

    run_id: int
    identity: str
    """SHA-256 of spec, dataset and stage versions."""
    plan: str
    profile: str
    state: RunState
    created_at: float
    """Seconds since 1970 UTC."""
    finished_at: float | None
    spec: dict[str, Any]
    code_version: str
    environment: dict[str, Any]
    dataset: str
    digest: str
    built_in: bool
    classes: tuple[str, ...]
    images: dict[str, int]
    """By split."""

    @property
    def p_tar(self) -> float:
        """The headline threshold."""
        return float(self.spec["p_tar"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Everything random was repeated for each of them."""
        return tuple(self.spec["seeds"])

    @property
    def kinds(self) -> Kinds:
        """How its images were distorted, and what it is compared with."""
        return Kinds(self.spec["levels"], self.spec["baselines"])

    @property
    def fidelities(self) -> tuple[str, ...]:
        """In the order of the spec."""
        return tuple(self.spec["fidelity"])

    @property
    def source(self) -> str:
        """Whose numbers these are, and of how many images."""
        dataset = "the built-in synthetic dataset" if self.built_in else "the given photographs"
        return (
            f"run {self.run_id}, profile {self.profile}: {dataset}, {self.images.get(TEST, 0):,} test images"
        )

    @property
    def split(self) -> str:
        """How images were assigned to train, validation and test."""
        if file := self.spec.get("split_file"):
            return f"the given split (file with SHA-256 {file})"
        return f"a stratified split (seed {self.spec['split_seed']})"

    @property
    def caption(self) -> str:
        """For every table: the source, the seeds, and what ± means."""
        if len(self.seeds) == 1:
            return f"{self.source}, seed {self.seeds[0]}"
        return f"{self.source}; mean ± half the 95 % interval over {self.named_seeds}"

    @property
    def named_seeds(self) -> str:
        """As in: the 2 seeds 0, 1. A mean leaves out seeds without a value, e.g. if nothing left the edge."""
        return f"the {len(self.seeds)} seeds {', '.join(map(str, self.seeds))}, or those of them that have a value"

    def among_several(self, fidelity: str) -> str:
        """Names the fidelity where the run has more than one."""
        return f", fidelity {fidelity}" if len(self.fidelities) > 1 else ""

    def differences(self, fidelity: str) -> str:
        """A caveat for comparing our numbers with the published ones."""
        source = "synthetic images" if self.built_in else "photographs"
        size = self.spec["image_size"]
        frozen = self.spec["backbone"]["epochs"] == 0 or FIDELITIES[fidelity].freeze_backbone
        name = self.spec["architecture"]["backbone"]
        backbone = f"{'frozen' if frozen else 'trained'} {name}"
        return (
            "Published: one training on Caltech-256 (257 classes), 3,056 test images of the authors' own split, "
            "300 × 300, by the released code; an expert on its own distortion only, without the classifier. "
            f"Ours: {len(self.classes)} classes of {source}, {self.images.get(TEST, 0):,} test images of "
            f"{self.split}, {size} × {size}, profile {self.profile} ({backbone}), "
            f"fidelity {fidelity}. These are not the same images: compare shapes, not digits."
        )


def manifest(session: Session, run_id: int) -> Manifest:
    """The manifest of a stored run."""
    run = session.get_one(Run, run_id)
    dataset = session.get_one(Dataset, run.dataset_id)
    # counted from the stored rows: the folder may have changed since
    splits = select(Image.split, func.count()).where(Image.dataset_id == dataset.id).group_by(Image.split)
    return Manifest(
        run_id,
        run.identity,
        run.plan,
        run.profile,
        run.state,
        run.created_at,
        run.finished_at,
        run.spec,
        run.code_version,
        run.environment,
        dataset.uri,
        dataset.digest,
        dataset.built_in,
        tuple(dataset.classes),
        {row[0]: row[1] for row in session.execute(splits)},
    )


def utc(seconds: float | None) -> str:
    """A time from the database as text; – for None."""
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
