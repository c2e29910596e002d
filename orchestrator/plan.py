"""The graph of the paper as jobs that depend on jobs: pure, deterministic, in memory.

Jobs come in the order in which they should start: every parent before its children, the long training
first. Labels are for people; keys (SHA-256) say what a result is computed from.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from early_exit.latency import PROFILES
from early_exit.vocabulary import EXPERTS, GAUSSIAN_NOISE, KINDS, POLICIES, PRISTINE
from orchestrator.spec import Spec, canonical_json
from tasks.params import (
    BackboneTraining,
    Classify,
    Distort,
    Features,
    Latency,
    Measure,
    Predict,
    Prepare,
    Spectra,
    StageParams,
    Sweep,
    TrainBackbone,
    TrainClassifier,
    TrainExpert,
)

TEST, TRAIN, VALIDATION = "test", "train", "validation"

TARGETS = {
    "distorted-dataset": ("distort",),
    "spectra": ("spectra",),
    "distortion-classifier": ("train-classifier", "classify"),
    "experts": ("train-expert",),
    "accuracy": ("sweep",),
    "offloading": ("sweep",),
    "latency": ("latency",),
    "full-paper": ("latency",),
}
"""Every step of the paper's README is a plan: full-paper's graph, cut short after these stages."""


@dataclass(frozen=True)
class DatasetShape:
    """All that planning needs to know of a dataset."""

    digest: str
    classes: int
    split_sizes: Mapping[str, int]


@dataclass(frozen=True)
class PlannedJob:
    """One job: ``reads`` and ``after`` are positions in the plan; ``after`` orders without being read."""

    params: StageParams
    label: str
    key: str
    reads: tuple[int, ...]
    after: tuple[int, ...] = ()


@dataclass
class Plan:
    """The jobs of one run in starting order, and where to find those that others depend on."""

    releases: Mapping[str, str]
    jobs: list[PlannedJob] = field(default_factory=list)
    targets: tuple[str, ...] = ()
    """Stages that the plan is for: wanted even where they write no rows."""

    def add(self, params: StageParams, label: str, reads: Iterable[int], after: Iterable[int] = ()) -> int:
        """Append a job and return its position."""
        reads = tuple(reads)
        key = _key(params, [self.jobs[position].key for position in reads], self.releases)
        self.jobs.append(PlannedJob(params, label, key, reads, tuple(after)))
        return len(self.jobs) - 1


def plan(spec: Spec, dataset: DatasetShape, releases: Mapping[str, str]) -> Plan:
    """Expand ``spec`` over ``dataset``; ``releases`` maps a library to its major.minor release."""
    return _cut(_Expansion(spec, dataset, Plan(releases)).expand(), TARGETS[spec.plan])


def _cut(whole: Plan, targets: tuple[str, ...]) -> Plan:
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


def conditions(spec: Spec) -> list[tuple[str, int]]:
    """Every (kind, level) that test images are evaluated at, pristine (level 0) first."""
    return [(kind, level) for kind in EXPERTS for level in spec.levels.of(kind)]


def _key(params: StageParams, input_keys: list[str], releases: Mapping[str, str]) -> str:
    made_of = {
        "stage": params.stage,
        "version": params.version,
        "params": dataclasses.asdict(params),
        "inputs": input_keys,
        "libraries": {library: releases[library] for library in params.libraries},
    }
    return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()


@dataclass
class _Expansion:
    """One walk over the stages; each method adds one stage and remembers the positions of its jobs."""

    spec: Spec
    dataset: DatasetShape
    plan: Plan

    def expand(self) -> Plan:
        prepared = {split: self._prepare(split) for split in (TRAIN, VALIDATION, TEST)}
        backbone = self._train_backbone(prepared)
        distorted = self._distort(prepared[TEST])
        classifier = self._train_classifier(prepared)
        classified = self._classify(classifier, distorted)
        features = self._training_features(prepared, backbone)
        experts = self._train_experts(features)
        predicted = self._predict(experts, self._test_features(distorted, backbone))
        swept = self._sweep(predicted, classified)
        measured = self._measure(prepared[TEST][0], backbone, experts[PRISTINE], classifier, swept)
        self._latency(measured, predicted, classified)
        return self.plan

    @property
    def _augmented(self) -> bool:
        return self.spec.augmentation == "paper"

    def _shards(self, split: str) -> list[tuple[int, int]]:
        size, step = self.dataset.split_sizes[split], self.spec.shard_size
        return [(start, min(start + step, size)) for start in range(0, size, step)]

    def _prepare(self, split: str) -> list[int]:
        digest, size = self.dataset.digest, self.spec.image_size
        return [
            self.plan.add(Prepare(digest, split, start, stop, size), f"{split} {start}–{stop - 1}", ())
            for start, stop in self._shards(split)
        ]

    def _train_backbone(self, prepared: dict[str, list[int]]) -> int:
        spec = self.spec
        frozen = spec.backbone.epochs == 0
        params = TrainBackbone(
            classes=self.dataset.classes,
            architecture=spec.architecture,
            weights=spec.weights,
            augmented=self._augmented and not frozen,
            training=BackboneTraining(epochs=0) if frozen else spec.backbone,
            seed=None if frozen else spec.seed,
            device="cpu" if frozen else spec.device,
            threads=1 if frozen else spec.training.threads,
        )
        reads = [] if frozen else [*prepared[TRAIN], *prepared[VALIDATION]]
        return self.plan.add(params, "frozen weights" if frozen else "all layers", reads)

    def _distort(self, prepared: list[int]) -> dict[tuple[str, int], list[int]]:
        jobs: dict[tuple[str, int], list[int]] = {}
        for kind, level in conditions(self.spec):
            if kind == PRISTINE:
                jobs[kind, level] = prepared
                continue
            params = Distort(kind, level, self.spec.seed if kind == GAUSSIAN_NOISE else None)
            jobs[kind, level] = [
                self.plan.add(params, f"{kind} {level}, {self._shard_of(shard)}", [shard])
                for shard in prepared
            ]
        return jobs

    def _shard_of(self, position: int) -> str:
        return self.plan.jobs[position].label.rpartition(", ")[2]

    def _train_classifier(self, prepared: dict[str, list[int]]) -> int:
        spec = self.spec
        spectra = [
            self.plan.add(
                Spectra(
                    split=split,
                    kind=kind,
                    levels=spec.levels.of(kind),
                    spectrum_size=spec.spectrum_size,
                    seed=None if kind == PRISTINE else spec.seed,
                ),
                f"{kind}, {self._shard_of(shard)}",
                [shard],
            )
            for split in (TRAIN, VALIDATION)
            for kind in KINDS
            for shard in prepared[split]
        ]
        params = TrainClassifier(
            spec.spectrum_size, spec.classifier, spec.seed, spec.device, spec.training.threads
        )
        return self.plan.add(params, "blur, noise or pristine", spectra)

    def _classify(
        self, classifier: int, distorted: dict[tuple[str, int], list[int]]
    ) -> dict[tuple[str, int], list[int]]:
        jobs: dict[tuple[str, int], list[int]] = {}
        spectra = Spectra(TEST, PRISTINE, (0,), self.spec.spectrum_size, None)
        for (kind, level), shards in distorted.items():
            params = Classify(kind, level, self.spec.spectrum_size)
            jobs[kind, level] = []
            for shard in shards:
                label = f"{kind} {level}, {self._shard_of(shard)}"
                read = self.plan.add(spectra, label, [shard])
                jobs[kind, level].append(self.plan.add(params, label, [read, classifier]))
        return jobs

    def _training_features(
        self, prepared: dict[str, list[int]], backbone: int
    ) -> dict[tuple[str, str], list[list[int]]]:
        """By (split, kind): for each view the jobs of all shards.

        The undistorted half of a kind's views are pristine's own, so the backbone runs once for both; where
        nothing is augmented these are all the same, and there is one.
        """
        half = self.spec.views // 2
        undistorted = self.spec.views if self._augmented else 1
        jobs: dict[tuple[str, str], list[list[int]]] = {}
        for kind in EXPERTS:
            own = range(undistorted) if kind == PRISTINE else range(half, self.spec.views)
            shared = [] if kind == PRISTINE else jobs[TRAIN, PRISTINE][:half]
            share = 0.0 if kind == PRISTINE else 1.0
            jobs[TRAIN, kind] = [
                *shared,
                *(self._features(TRAIN, kind, share, v, prepared, backbone) for v in own),
            ]
            share = 0.0 if kind == PRISTINE else 0.5
            jobs[VALIDATION, kind] = [self._features(VALIDATION, kind, share, 0, prepared, backbone)]
        return jobs

    def _features(
        self, split: str, kind: str, share: float, view: int, prepared: dict[str, list[int]], backbone: int
    ) -> list[int]:
        augmented = self._augmented and split == TRAIN
        params = Features(
            split=split,
            kind=kind,
            levels=self.spec.levels.of(kind),
            share=share,
            view=view,
            augmented=augmented,
            architecture=self.spec.architecture,
            seed=self.spec.seed if share or augmented else None,
            device=self.spec.device,
        )
        return [
            self.plan.add(params, f"{kind} view {view}, {self._shard_of(shard)}", [shard, backbone])
            for shard in prepared[split]
        ]

    def _test_features(
        self, distorted: dict[tuple[str, int], list[int]], backbone: int
    ) -> dict[tuple[str, int], list[int]]:
        params = Features(
            split=TEST,
            kind=PRISTINE,
            levels=(0,),
            share=0.0,
            view=0,
            augmented=False,
            architecture=self.spec.architecture,
            seed=None,
            device=self.spec.device,
        )
        return {
            (kind, level): [
                self.plan.add(params, f"{kind} {level}, {self._shard_of(shard)}", [shard, backbone])
                for shard in shards
            ]
            for (kind, level), shards in distorted.items()
        }

    def _train_experts(self, features: dict[tuple[str, str], list[list[int]]]) -> dict[str, int]:
        """Pristine first: the other experts start from its heads."""
        jobs: dict[str, int] = {}
        for kind in EXPERTS:
            undistorted = self.spec.views if kind == PRISTINE else self.spec.views // 2
            repeats = 1 if self._augmented else undistorted
            params = TrainExpert(kind, self.dataset.classes, repeats, self.spec.expert, self.spec.seed)
            views = [*features[TRAIN, kind], *features[VALIDATION, kind]]
            start = [] if kind == PRISTINE else [jobs[PRISTINE]]
            jobs[kind] = self.plan.add(params, kind, [*(job for view in views for job in view), *start])
        return jobs

    def _predict(
        self, experts: dict[str, int], features: dict[tuple[str, int], list[int]]
    ) -> dict[tuple[str, str, int], list[int]]:
        """By (expert, kind, level): every expert on every kind and level."""
        return {
            (expert, kind, level): [
                self.plan.add(
                    Predict(expert, kind, level),
                    f"{expert} expert on {kind} {level}, {self._shard_of(shard)}",
                    [shard, position],
                )
                for shard in shards
            ]
            for expert, position in experts.items()
            for (kind, level), shards in features.items()
        }

    def _decisions(
        self,
        policy: str,
        condition: tuple[str, int],
        predicted: dict[tuple[str, str, int], list[int]],
        classified: dict[tuple[str, int], list[int]],
    ) -> list[int]:
        """The jobs that say what ``policy`` answers at one condition."""
        kind, level = condition
        match policy:
            case "classifier":
                experts = [job for expert in EXPERTS for job in predicted[expert, kind, level]]
                return [*experts, *classified[kind, level]]
            case "oracle":
                return predicted[kind, kind, level]
            case _:
                return predicted[policy, kind, level]

    def _sweep(
        self,
        predicted: dict[tuple[str, str, int], list[int]],
        classified: dict[tuple[str, int], list[int]],
    ) -> list[int]:
        return [
            self.plan.add(
                Sweep(policy, kind, level),
                f"policy {policy} on {kind} {level}",
                self._decisions(policy, (kind, level), predicted, classified),
            )
            for policy in POLICIES
            for kind, level in conditions(self.spec)
        ]

    def _measure(self, shard: int, backbone: int, expert: int, classifier: int, swept: list[int]) -> int:
        """After every sweep, and so after every prediction: nothing else of the run is left to run beside it."""
        spec = self.spec
        params = Measure(
            architecture=spec.architecture,
            classes=self.dataset.classes,
            spectrum_size=spec.spectrum_size,
            measurement=spec.measurement,
            device=spec.device,
            hardware=spec.hardware,
        )
        return self.plan.add(params, spec.hardware, [shard, backbone, expert, classifier], swept)

    def _latency(
        self,
        measured: int,
        predicted: dict[tuple[str, str, int], list[int]],
        classified: dict[tuple[str, int], list[int]],
    ) -> None:
        for policy in POLICIES:
            for profile in PROFILES:
                for kind, level in conditions(self.spec):
                    params = Latency(policy, profile, kind, level, self.spec.p_tar, self.spec.payload)
                    decisions = self._decisions(policy, (kind, level), predicted, classified)
                    self.plan.add(
                        params, f"policy {policy} over {profile} on {kind} {level}", [measured, *decisions]
                    )
