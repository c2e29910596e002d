"""What all stages of one variant have in common: the base of the classes that plan them."""

from collections.abc import Iterable
from dataclasses import dataclass

from early_exit.fidelity import FIDELITIES, Fidelity
from orchestrator.plan.graph import Plan, Variant
from orchestrator.plan.spec import Spec
from tasks.params import StageParams


@dataclass(frozen=True)
class Branch:
    """One variant's part of ``plan``; jobs are given as their positions in it."""

    spec: Spec
    plan: Plan
    variant: Variant
    classes: int

    @property
    def _fidelity(self) -> Fidelity:
        return FIDELITIES[self.variant.fidelity]

    def _add(self, params: StageParams, label: str, reads: Iterable[int], after: Iterable[int] = ()) -> int:
        return self.plan.add(params, label, reads, after, variant=self.variant)

    def _add_of_shard(self, params: StageParams, label: str, shard: int, *others: int) -> int:
        """A job about the images that job ``shard`` is about; it reads ``shard`` and then ``others``."""
        images = self.plan.jobs[shard].shard
        return self.plan.add(
            params, f"{label}, {images}", (shard, *others), variant=self.variant, shard=images
        )
