"""The plan of the paper: who reads whom, and with which parameters; pure, deterministic, in memory.

Jobs come in the order in which they should start: every parent before its children, the long training first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from early_exit.fidelity import FIDELITIES, Fidelity
from early_exit.latency import PROFILES
from early_exit.vocabulary import EXPERTS, GAUSSIAN_NOISE, KINDS, POLICIES, PRISTINE
from orchestrator.graph import Plan, Variant, cut
from orchestrator.spec import Spec
from tasks.params import (
    AdaptExpert,
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


def plan(spec: Spec, dataset: DatasetShape, releases: Mapping[str, str]) -> Plan:
    """Expand ``spec`` over ``dataset``; ``releases`` maps a library to its major.minor release."""
    whole = Plan(releases)
    walks = {
        fidelity: [_Walk(spec, dataset, whole, Variant(seed, fidelity)) for seed in spec.seeds]
        for fidelity in spec.fidelity
    }
    before = [position for seeds in walks.values() for walk in seeds for position in walk.to_sweeps()]
    for seeds in walks.values():
        measured = seeds[0].measure(before)
        before = [measured]  # one measurement at a time
        for walk in seeds:
            walk.latency(measured)
    return cut(whole, TARGETS[spec.plan])


def conditions(spec: Spec) -> list[tuple[str, int]]:
    """Every (kind, level) that test images are evaluated at, pristine (level 0) first."""
    return [(kind, level) for kind in EXPERTS for level in spec.levels.of(kind)]


@dataclass
class _Walk:
    """One variant's way through the stages; each method adds one stage and returns the positions of its jobs."""

    spec: Spec
    dataset: DatasetShape
    plan: Plan
    variant: Variant

    predicted: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    classified: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    measured_from: list[int] = field(default_factory=list)

    def to_sweeps(self) -> list[int]:
        """Everything up to the sweeps; returns their positions."""
        prepared = {split: self._prepare(split) for split in (TRAIN, VALIDATION, TEST)}
        backbone = self._train_backbone(prepared)
        distorted = self._distort(prepared[TEST])
        classifier = self._train_classifier(prepared)
        self.classified = self._classify(classifier, distorted)
        if self._fidelity.adapt_batchnorm:
            experts = self._adapt_experts(prepared, backbone)
            backbones = experts | {PRISTINE: backbone}
        else:
            experts = self._train_experts(self._training_features(prepared, backbone, EXPERTS), EXPERTS)
            backbones = dict.fromkeys(EXPERTS, backbone)
        self.predicted = {}
        for expert in EXPERTS:
            features = self._test_features(distorted, backbones[expert])
            self.predicted |= self._predict(expert, experts[expert], features)
        self.measured_from = [prepared[TEST][0], backbone, experts[PRISTINE], classifier]
        return self._sweep()

    def _add(self, params: StageParams, label: str, reads: Iterable[int], after: Iterable[int] = ()) -> int:
        return self.plan.add(params, label, reads, after, self.variant)

    @property
    def _fidelity(self) -> Fidelity:
        return FIDELITIES[self.variant.fidelity]

    @property
    def _augmented(self) -> bool:
        return self.spec.augmentation == "paper"

    def _shards(self, split: str) -> list[tuple[int, int]]:
        size, step = self.dataset.split_sizes[split], self.spec.shard_size
        return [(start, min(start + step, size)) for start in range(0, size, step)]

    def _prepare(self, split: str) -> list[int]:
        squashed = self._fidelity.squash and split == TRAIN
        return self._prepare_as("squash" if squashed else "margin", split, self.spec.image_size)

    def _prepare_as(self, resize: str, split: str, size: int) -> list[int]:
        digest = self.dataset.digest
        return [
            self._add(Prepare(digest, split, start, stop, size, resize), f"{split} {start}–{stop - 1}", ())
            for start, stop in self._shards(split)
        ]

    def _train_backbone(self, prepared: dict[str, list[int]]) -> int:
        spec = self.spec
        frozen = spec.backbone.epochs == 0
        params = TrainBackbone(
            classes=self.dataset.classes,
            architecture=spec.architecture,
            drop_blocks=self._fidelity.drop_blocks,
            weights=spec.weights,
            augmented=self._augmented and not frozen,
            training=BackboneTraining(epochs=0) if frozen else spec.backbone,
            seed=None if frozen else self.variant.seed,
            device="cpu" if frozen else spec.device,
            threads=1 if frozen else spec.training.threads,
        )
        reads = [] if frozen else [*prepared[TRAIN], *prepared[VALIDATION]]
        return self._add(params, "frozen weights" if frozen else "all layers", reads)

    def _distort(self, prepared: list[int]) -> dict[tuple[str, int], list[int]]:
        jobs: dict[tuple[str, int], list[int]] = {}
        for kind, level in conditions(self.spec):
            if kind == PRISTINE:
                jobs[kind, level] = prepared
                continue
            params = Distort(kind, level, self.variant.seed if kind == GAUSSIAN_NOISE else None)
            jobs[kind, level] = [
                self._add(params, f"{kind} {level}, {self._shard_of(shard)}", [shard]) for shard in prepared
            ]
        return jobs

    def _shard_of(self, position: int) -> str:
        return self.plan.jobs[position].label.rpartition(", ")[2]

    def _train_classifier(self, prepared: dict[str, list[int]]) -> int:
        spec, released = self.spec, self._fidelity.released_spectra
        if released:  # they are taken of pictures that were never larger
            prepared = {
                split: self._prepare_as("plain", split, spec.spectrum_size) for split in (TRAIN, VALIDATION)
            }
        spectra = [
            self._add(
                Spectra(
                    split=split,
                    kind=kind,
                    levels=spec.levels.of(kind),
                    spectrum_size=spec.spectrum_size,
                    form="released-training" if released else "ours",
                    seed=None if kind == PRISTINE else self.variant.seed,
                ),
                f"{kind}, {self._shard_of(shard)}",
                [shard],
            )
            for split in (TRAIN, VALIDATION)
            for kind in KINDS
            for shard in prepared[split]
        ]
        params = TrainClassifier(
            spec.spectrum_size, spec.classifier, self.variant.seed, spec.device, spec.training.threads
        )
        return self._add(params, "blur, noise or pristine", spectra)

    def _classify(
        self, classifier: int, distorted: dict[tuple[str, int], list[int]]
    ) -> dict[tuple[str, int], list[int]]:
        jobs: dict[tuple[str, int], list[int]] = {}
        form = "released-edge" if self._fidelity.released_spectra else "ours"
        spectra = Spectra(TEST, PRISTINE, (0,), self.spec.spectrum_size, form, None)
        for (kind, level), shards in distorted.items():
            params = Classify(kind, level, self.spec.spectrum_size)
            jobs[kind, level] = []
            for shard in shards:
                label = f"{kind} {level}, {self._shard_of(shard)}"
                read = self._add(spectra, label, [shard])
                jobs[kind, level].append(self._add(params, label, [read, classifier]))
        return jobs

    def _training_features(
        self, prepared: dict[str, list[int]], backbone: int, experts: tuple[str, ...]
    ) -> dict[tuple[str, str], list[list[int]]]:
        """By (split, kind): for each view the jobs of all shards.

        The undistorted half of a kind's views are pristine's own, so the backbone runs once for both; where
        nothing is augmented these are all the same, and there is one.
        """
        half = self.spec.views // 2
        undistorted = self.spec.views if self._augmented else 1
        jobs: dict[tuple[str, str], list[list[int]]] = {}
        for kind in experts:
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
            drop_blocks=self._fidelity.drop_blocks,
            seed=self.variant.seed if share or augmented else None,
            device=self.spec.device,
        )
        return [
            self._add(params, f"{kind} view {view}, {self._shard_of(shard)}", [shard, backbone])
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
            drop_blocks=self._fidelity.drop_blocks,
            seed=None,
            device=self.spec.device,
        )
        return {
            (kind, level): [
                self._add(params, f"{kind} {level}, {self._shard_of(shard)}", [shard, backbone])
                for shard in shards
            ]
            for (kind, level), shards in distorted.items()
        }

    def _train_experts(
        self, features: dict[tuple[str, str], list[list[int]]], experts: tuple[str, ...]
    ) -> dict[str, int]:
        """Pristine first: the other experts start from its heads."""
        jobs: dict[str, int] = {}
        for kind in experts:
            undistorted = self.spec.views if kind == PRISTINE else self.spec.views // 2
            repeats = 1 if self._augmented else undistorted
            params = TrainExpert(
                expert=kind,
                classes=self.dataset.classes,
                repeats=repeats,
                training=self.spec.expert,
                fixed_order=self._fidelity.fixed_order,
                seed=self.variant.seed,
            )
            views = [*features[TRAIN, kind], *features[VALIDATION, kind]]
            start = [] if kind == PRISTINE else [jobs[PRISTINE]]
            jobs[kind] = self._add(params, kind, [*(job for view in views for job in view), *start])
        return jobs

    def _adapt_experts(self, prepared: dict[str, list[int]], backbone: int) -> dict[str, int]:
        """Pristine on cached vectors; the others with a BatchNorm of their own, so that vectors cannot be cached."""
        spec = self.spec
        jobs = self._train_experts(self._training_features(prepared, backbone, (PRISTINE,)), (PRISTINE,))
        for kind in (kind for kind in EXPERTS if kind != PRISTINE):
            params = AdaptExpert(
                expert=kind,
                classes=self.dataset.classes,
                levels=spec.levels.of(kind),
                architecture=spec.architecture,
                drop_blocks=self._fidelity.drop_blocks,
                augmented=self._augmented,
                training=spec.expert,
                fixed_order=self._fidelity.fixed_order,
                seed=self.variant.seed,
                device=spec.device,
                threads=spec.training.threads,
            )
            reads = [backbone, jobs[PRISTINE], *prepared[TRAIN], *prepared[VALIDATION]]
            jobs[kind] = self._add(params, kind, reads)
        return jobs

    def _predict(
        self, expert: str, trained: int, features: dict[tuple[str, int], list[int]]
    ) -> dict[tuple[str, str, int], list[int]]:
        """By (expert, kind, level): every expert on every kind and level."""
        return {
            (expert, kind, level): [
                self._add(
                    Predict(expert, kind, level),
                    f"{expert} expert on {kind} {level}, {self._shard_of(shard)}",
                    [shard, trained],
                )
                for shard in shards
            ]
            for (kind, level), shards in features.items()
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

    def _sweep(self) -> list[int]:
        return [
            self._add(
                Sweep(policy, kind, level),
                f"policy {policy} on {kind} {level}",
                self._decisions(policy, kind, level),
            )
            for policy in POLICIES
            for kind, level in conditions(self.spec)
        ]

    def measure(self, swept: list[int]) -> int:
        """After every sweep, and so after every prediction: nothing else of the run is left to run beside it."""
        spec = self.spec
        params = Measure(
            architecture=spec.architecture,
            drop_blocks=self._fidelity.drop_blocks,
            classes=self.dataset.classes,
            spectrum_size=spec.spectrum_size,
            released_spectra=self._fidelity.released_spectra,
            measurement=spec.measurement,
            device=spec.device,
            hardware=spec.hardware,
        )
        return self._add(params, spec.hardware, self.measured_from, swept)

    def latency(self, measured: int) -> None:
        """Times do not depend on what the weights are: all seeds read one measurement."""
        for policy in POLICIES:
            for profile in PROFILES:
                for kind, level in conditions(self.spec):
                    params = Latency(policy, profile, kind, level, self.spec.p_tar, self.spec.payload)
                    label = f"policy {policy} over {profile} on {kind} {level}"
                    self._add(params, label, [measured, *self._decisions(policy, kind, level)])
