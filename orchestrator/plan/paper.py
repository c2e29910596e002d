"""The plan of the paper: which job reads which, and with which parameters; pure, deterministic, in memory.

This file has the targets and all stages up to the predictions, except the experts' training, which is in
``experts``; what follows the predictions is in ``evaluation``.

Jobs are in the order in which they should start: parents before children, the longest training first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from early_exit.backbone import recipe
from early_exit.distortion import distortion, version_of
from early_exit.fidelity import FIDELITIES
from early_exit.kinds import Kinds
from early_exit.settings import BackboneTraining
from early_exit.splits import TEST, TRAIN, VALIDATION
from early_exit.vocabulary import PRISTINE
from orchestrator.plan.branch import Branch
from orchestrator.plan.evaluation import Evaluation
from orchestrator.plan.experts import ExpertTraining
from orchestrator.plan.graph import Plan, Shard, Variant, cut
from orchestrator.plan.spec import Spec
from tasks.params import (
    STAGES,
    Classify,
    Distort,
    Features,
    Predict,
    Prepare,
    Spectra,
    StageParams,
    TrainBackbone,
    TrainClassifier,
)


def _ends(plan: str) -> Callable[[StageParams], bool]:
    """Whether ``plan`` ends with a job; prepared images are worth keeping only of the test split."""
    return lambda params: plan in params.plans and not (isinstance(params, Prepare) and params.split != TEST)


TARGETS = {plan: _ends(plan) for params in STAGES.values() for plan in params.plans}
"""Every step of the paper is a plan: the graph of full-paper, cut short after these jobs."""


@dataclass(frozen=True)
class DatasetShape:
    """Everything planning needs to know about a dataset."""

    digest: str
    classes: int
    split_sizes: Mapping[str, int]


def plan(spec: Spec, dataset: DatasetShape, releases: Mapping[str, str], most: int | None = None) -> Plan:
    """Expand ``spec`` over ``dataset``; ``releases`` maps a library to its major.minor release.

    Raises ``TooManyJobs`` as soon as there are more than ``most``, counted before any plan is cut short.
    """
    whole = Plan(releases, most)
    before: list[int] = []
    evaluations: dict[str, list[Evaluation]] = {}
    for fidelity in spec.fidelity:
        # decided here, per fidelity, and so part of every key that the architecture touches
        dropped = replace(spec.architecture, drop_blocks=FIDELITIES[fidelity].drop_blocks)
        computed = spec.model_copy(update={"architecture": dropped})
        for seed in spec.seeds:
            walk = _Walk(computed, whole, Variant(seed, fidelity), dataset.classes, dataset)
            evaluation = walk.to_predictions()
            evaluations.setdefault(fidelity, []).append(evaluation)
            before += evaluation.judge()
    measured = []
    for seeds in evaluations.values():
        # once per fidelity: times depend on the networks, not on a seed; after all other work, which would
        # slow them down
        measured.append(seeds[0].measure(before))
        before = measured[-1:]  # one measurement at a time, and nothing alongside the last one either
    for seeds, of_fidelity in zip(evaluations.values(), measured, strict=True):
        for evaluation in seeds:
            evaluation.time(of_fidelity, measured[-1])
    # planned as a whole and cut afterwards, so that a job has the same key in every plan
    return cut(whole, TARGETS[spec.plan])


@dataclass(frozen=True)
class _Walk(Branch):
    """One variant's stages up to the predictions; each method adds one and returns the positions of its jobs."""

    dataset: DatasetShape

    def to_predictions(self) -> Evaluation:
        """Add all of them; the evaluation continues from there."""
        prepared = {split: self._prepare(split) for split in (TRAIN, VALIDATION, TEST)}
        backbone = self._train_backbone(prepared)
        distorted = self._distort(prepared[TEST])
        classifier = self._train_classifier(prepared)
        classified = self._classify(classifier, distorted)
        shared = (self.spec, self.plan, self.variant, self.classes)
        experts, adapted = ExpertTraining(*shared, prepared, backbone).train()
        backbone_of = dict.fromkeys(experts, backbone) | adapted
        return Evaluation(
            *shared,
            images=distorted,
            classifier=classifier,
            classified=classified,
            backbones=backbone_of,
            experts=experts,
            predicted=self._predict(distorted, backbone_of, experts),
        )

    @property
    def _kinds(self) -> Kinds:
        return self.spec.kinds

    def _shards(self, split: str) -> list[Shard]:
        size, step = self.dataset.split_sizes[split], self.spec.shard_size
        return [Shard(split, start, min(start + step, size)) for start in range(0, size, step)]

    def _prepare(self, split: str) -> list[int]:
        squashed = self._fidelity.squash and split == TRAIN
        return self._prepare_as("squash" if squashed else "margin", split, self.spec.image_size)

    def _prepare_as(self, resize: str, split: str, size: int) -> list[int]:
        digest = self.dataset.digest
        return [
            self.plan.add(
                Prepare(digest, split, shard.start, shard.stop, size, resize),
                str(shard),
                reads=(),
                shard=shard,
            )
            for shard in self._shards(split)
        ]

    def _train_backbone(self, prepared: dict[str, list[int]]) -> int:
        spec = self.spec
        frozen = spec.backbone.epochs == 0 or self._fidelity.freeze_backbone
        params = TrainBackbone(
            classes=self.classes,
            architecture=spec.architecture,
            weights=spec.weights,
            augmented=self.spec.augmented and not frozen,
            training=BackboneTraining(epochs=0) if frozen else spec.backbone,
            # whatever is not random has no seed, so that all seeds share one job
            seed=None if frozen else self.variant.seed,
            device="cpu" if frozen else spec.device,
            threads=1 if frozen else spec.training.threads,
            backbone_version=recipe(spec.architecture.backbone).version,
        )
        reads = [] if frozen else [*prepared[TRAIN], *prepared[VALIDATION]]
        return self._add(params, "frozen weights" if frozen else "all layers", reads)

    def _distort(self, prepared: list[int]) -> dict[tuple[str, int], list[int]]:
        jobs: dict[tuple[str, int], list[int]] = {}
        for kind, level in self._kinds.conditions:
            if kind == PRISTINE:
                jobs[kind, level] = prepared
                continue
            # blurred images are the same for every seed: one job serves them all
            seed = self.variant.seed if distortion(kind).random else None
            params = Distort(kind, version_of(kind), level, seed)
            jobs[kind, level] = [self._add_of_shard(params, f"{kind} {level}", shard) for shard in prepared]
        return jobs

    def _train_classifier(self, prepared: dict[str, list[int]]) -> int:
        spec, released = self.spec, self._fidelity.released_spectra
        if released:  # they are computed from images that were never larger
            prepared = {
                split: self._prepare_as("plain", split, spec.spectrum_size) for split in (TRAIN, VALIDATION)
            }
        spectra = [
            self._add_of_shard(
                Spectra(
                    split=split,
                    kind=kind,
                    kind_version=version_of(kind),
                    levels=self._kinds.of(kind),
                    spectrum_size=spec.spectrum_size,
                    form="released-training" if released else "ours",
                    seed=None if kind == PRISTINE else self.variant.seed,
                ),
                kind,
                shard,
            )
            for split in (TRAIN, VALIDATION)
            for kind in self._kinds.labels
            for shard in prepared[split]
        ]
        params = TrainClassifier(
            kinds=self._kinds.labels,
            spectrum_size=spec.spectrum_size,
            training=spec.classifier,
            seed=self.variant.seed,
            device=spec.device,
            threads=spec.training.threads,
        )
        return self._add(params, ", ".join(self._kinds.labels), spectra)

    def _classify(
        self, classifier: int, distorted: dict[tuple[str, int], list[int]]
    ) -> dict[tuple[str, int], list[int]]:
        jobs: dict[tuple[str, int], list[int]] = {}
        form = "released-edge" if self._fidelity.released_spectra else "ours"
        # as pristine, since the images that it reads are distorted already
        spectra = Spectra(TEST, PRISTINE, version_of(PRISTINE), (0,), self.spec.spectrum_size, form, None)
        for (kind, level), shards in distorted.items():
            params = Classify(self._kinds.labels, kind, level, self.spec.spectrum_size)
            label = f"{kind} {level}"
            jobs[kind, level] = [
                self._add_of_shard(params, label, self._add_of_shard(spectra, label, shard), classifier)
                for shard in shards
            ]
        return jobs

    def _predict(
        self,
        images: Mapping[tuple[str, int], list[int]],
        backbone_of: Mapping[str, int],
        experts: Mapping[str, int],
    ) -> dict[tuple[str, str, int], list[int]]:
        """Every expert on every kind and level."""
        return {
            (expert, kind, level): [
                self._add_of_shard(
                    Predict(expert, kind, level), f"{expert} expert on {kind} {level}", shard, heads
                )
                for shard in shards
            ]
            for expert, heads in experts.items()
            for (kind, level), shards in self._test_features(images, backbone_of[expert]).items()
        }

    def _test_features(
        self, images: Mapping[tuple[str, int], list[int]], backbone: int
    ) -> dict[tuple[str, int], list[int]]:
        """By (kind, level): the vectors of all test images."""
        params = Features(
            split=TEST,
            kind=PRISTINE,
            kind_version=version_of(PRISTINE),
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
                self._add_of_shard(params, f"{kind} {level}", shard, backbone) for shard in shards
            ]
            for (kind, level), shards in images.items()
        }
