"""The half of the plan that evaluates: from every expert's predictions to results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from early_exit.policies import policy
from early_exit.vocabulary import PRISTINE
from orchestrator.plan.branch import Branch
from tasks.params import (
    Deadlines,
    Latency,
    Measure,
    Outage,
    PayloadAccuracy,
    Reliability,
    StageParams,
    Sweep,
)


@dataclass(frozen=True)
class Evaluation(Branch):
    """One variant's results."""

    images: Mapping[tuple[str, int], list[int]]
    """Test images by (kind, level)."""
    classifier: int
    classified: Mapping[tuple[str, int], list[int]]
    """By (kind, level)."""
    backbones: Mapping[str, int]
    """By expert."""
    experts: Mapping[str, int]
    predicted: Mapping[tuple[str, str, int], list[int]]
    """By (expert, kind, level)."""

    def judge(self) -> list[int]:
        """All results that need no measured times; returns the positions of their jobs."""
        return [
            *self._of_every_policy(Sweep),
            *self._of_every_policy(partial(Outage, seed=self.variant.seed)),
            *self._reliability(),
            *self._payload_accuracy(),
        ]

    def measure(self, before: list[int]) -> int:
        """After every other result, so that no other job of the run runs at the same time."""
        spec, fidelity = self.spec, self._fidelity
        params = Measure(
            architecture=spec.architecture,
            classes=self.classes,
            spectrum_size=spec.spectrum_size,
            released_spectra=fidelity.released_spectra,
            measurement=spec.measurement,
            device=spec.device,
            hardware=spec.hardware,
        )
        reads = [
            self.images[PRISTINE, 0][0],
            self.backbones[PRISTINE],
            self.experts[PRISTINE],
            self.classifier,
        ]
        return self._add(params, spec.hardware, reads, before)

    def time(self, measured: int, last: int) -> None:
        """Latencies and missed deadlines, after the ``last`` measurement of all fidelities.

        Times do not depend on the weights, so seeds share a measurement.
        """
        spec, after = self.spec, {last} - {measured}
        for name in self.spec.kinds.policies:
            for kind, level in spec.kinds.conditions:
                reads = [measured, *self._decisions(name, kind, level)]
                where = f"policy {name} on {kind} {level}"
                self._add(Latency(name, kind, level, spec.p_tar), where, reads, after)
                missed = Deadlines(name, kind, level, spec.p_tar, spec.payload, self.variant.seed)
                self._add(missed, where, reads, after)

    def _of_every_policy(self, make: Callable[[str, str, int], StageParams]) -> list[int]:
        """One job per policy, kind and level, from the answers of the policy there."""
        return [
            self._add(
                make(name, kind, level),
                f"policy {name} on {kind} {level}",
                self._decisions(name, kind, level),
            )
            for name in self.spec.kinds.policies
            for kind, level in self.spec.kinds.conditions
        ]

    def _reliability(self) -> list[int]:
        return [
            self._add(
                Reliability(expert, kind, level),
                f"{expert} expert on {kind} {level}",
                self.predicted[expert, kind, level],
            )
            for expert in self.experts
            for kind, level in self.spec.kinds.conditions
        ]

    def _payload_accuracy(self) -> list[int]:
        """The matching expert on pristine images and on the middle level of each distortion."""
        jobs = []
        for expert in self.spec.kinds.experts:
            levels = sorted(self.spec.kinds.of(expert))
            level = levels[len(levels) // 2]
            params = PayloadAccuracy(
                expert=expert,
                kind=expert,
                level=level,
                architecture=self.spec.architecture,
                device=self.spec.device,
            )
            # An adapted expert is one artifact with its backbone.
            networks = dict.fromkeys((self.backbones[expert], self.experts[expert]))
            jobs += [
                self._add_of_shard(params, f"{expert} {level}", shard, *networks)
                for shard in self.images[expert, level]
            ]
        return jobs

    def _decisions(self, name: str, kind: str, level: int) -> list[int]:
        """The jobs that determine what the policy ``name`` answers at one condition."""
        asked = policy(name)
        if not asked.asks_classifier:
            return self.predicted[asked.expert_for(kind), kind, level]
        experts = [job for expert in self.spec.kinds.experts for job in self.predicted[expert, kind, level]]
        return [*experts, *self.classified[kind, level]]
