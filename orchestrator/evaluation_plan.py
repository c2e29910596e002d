"""The half of the plan that evaluates: from what every expert says of the test pictures to results."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from early_exit.fidelity import FIDELITIES
from early_exit.latency import PROFILES
from early_exit.vocabulary import EXPERTS, POLICIES, PRISTINE
from orchestrator.graph import Plan, Variant
from orchestrator.spec import Spec
from tasks.params import Features, Latency, Measure, Predict, StageParams, Sweep

TEST = "test"


def conditions(spec: Spec) -> list[tuple[str, int]]:
    """Every (kind, level) that test images are evaluated at, pristine (level 0) first."""
    return [(kind, level) for kind in EXPERTS for level in spec.levels.of(kind)]


def shard_of(plan: Plan, position: int) -> str:
    """The range of images that a job is about, as its label has it."""
    return plan.jobs[position].label.rpartition(", ")[2]


@dataclass(frozen=True)
class Evaluation:
    """One variant's results; jobs stand as their positions in the plan."""

    spec: Spec
    plan: Plan
    variant: Variant
    classes: int
    pictures: Mapping[tuple[str, int], list[int]]
    """Test pictures by (kind, level)."""
    classifier: int
    classified: Mapping[tuple[str, int], list[int]]
    """By (kind, level)."""
    backbones: Mapping[str, int]
    """By expert."""
    experts: Mapping[str, int]
    predicted: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    """By (expert, kind, level); filled by ``predict``."""

    def predict(self) -> None:
        """Every expert on every kind and level."""
        for expert in EXPERTS:
            for (kind, level), shards in self._features(self.backbones[expert]).items():
                params = Predict(expert, kind, level)
                label = f"{expert} expert on {kind} {level}"
                self.predicted[expert, kind, level] = [
                    self._add(params, f"{label}, {shard_of(self.plan, shard)}", [shard, self.experts[expert]])
                    for shard in shards
                ]

    def sweep(self) -> list[int]:
        """Counts of every policy at every condition; the positions of their jobs."""
        return [
            self._add(
                Sweep(policy, kind, level),
                f"policy {policy} on {kind} {level}",
                self._decisions(policy, kind, level),
            )
            for policy in POLICIES
            for kind, level in conditions(self.spec)
        ]

    def measure(self, before: list[int]) -> int:
        """After every sweep, and so after every prediction: nothing else of the run is left to run beside it."""
        spec, fidelity = self.spec, FIDELITIES[self.variant.fidelity]
        params = Measure(
            architecture=spec.architecture,
            drop_blocks=fidelity.drop_blocks,
            classes=self.classes,
            spectrum_size=spec.spectrum_size,
            released_spectra=fidelity.released_spectra,
            measurement=spec.measurement,
            device=spec.device,
            hardware=spec.hardware,
        )
        reads = [
            self.pictures[PRISTINE, 0][0],
            self.backbones[PRISTINE],
            self.experts[PRISTINE],
            self.classifier,
        ]
        return self._add(params, spec.hardware, reads, before)

    def latency(self, measured: int) -> None:
        """Times do not depend on what the weights are: all seeds read one measurement."""
        for policy in POLICIES:
            for profile in PROFILES:
                for kind, level in conditions(self.spec):
                    params = Latency(policy, profile, kind, level, self.spec.p_tar, self.spec.payload)
                    label = f"policy {policy} over {profile} on {kind} {level}"
                    reads = [measured, *self._decisions(policy, kind, level)]
                    self._add(params, label, reads)

    def _add(self, params: StageParams, label: str, reads: Iterable[int], after: Iterable[int] = ()) -> int:
        return self.plan.add(params, label, reads, after, self.variant)

    def _features(self, backbone: int) -> dict[tuple[str, int], list[int]]:
        """By (kind, level): the vectors of all test pictures."""
        params = Features(
            split=TEST,
            kind=PRISTINE,
            levels=(0,),
            share=0.0,
            view=0,
            augmented=False,
            architecture=self.spec.architecture,
            drop_blocks=FIDELITIES[self.variant.fidelity].drop_blocks,
            seed=None,
            device=self.spec.device,
        )
        return {
            (kind, level): [
                self._add(params, f"{kind} {level}, {shard_of(self.plan, shard)}", [shard, backbone])
                for shard in shards
            ]
            for (kind, level), shards in self.pictures.items()
        }

    def _decisions(self, policy: str, kind: str, level: int) -> list[int]:
        """The jobs that say what ``policy`` answers at one condition."""
        match policy:
            case "classifier":
                experts = [job for expert in EXPERTS for job in self.predicted[expert, kind, level]]
                return [*experts, *self.classified[kind, level]]
            case "oracle":
                return self.predicted[kind, kind, level]
            case _:
                return self.predicted[policy, kind, level]
