"""The part of the plan that trains experts: the features that they are trained on, and their heads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from early_exit.backbone import recipe
from early_exit.distortion import version_of
from early_exit.splits import TRAIN, VALIDATION
from early_exit.vocabulary import PRISTINE
from orchestrator.plan.branch import Branch
from tasks.params import AdaptExpert, Features, TrainExpert


@dataclass(frozen=True)
class ExpertTraining(Branch):
    """One variant's experts."""

    prepared: Mapping[str, list[int]]
    """Images by split."""
    backbone: int

    def train(self) -> tuple[dict[str, int], dict[str, int]]:
        """All experts, and among them those that train a backbone of their own, on images instead of features."""
        learned = self.spec.kinds.learned
        cached = {PRISTINE: learned[PRISTINE]} if self._fidelity.adapt_batchnorm else learned
        experts = self._train_experts(cached)
        images = [*self.prepared[TRAIN], *self.prepared[VALIDATION]]
        start = [self.backbone, experts[PRISTINE], *images]
        rate = self.spec.total_learning_rate
        adapted = {
            expert: self._adapt_expert(expert, kinds, 0.0, start)
            for expert, kinds in learned.items()
            if expert not in cached
        } | {
            total: self._adapt_expert(total, (kind,), rate, start)
            for total, kind in self.spec.kinds.totals.items()
        }
        return experts | adapted, adapted

    def _training_features(self, kinds: Iterable[str]) -> dict[tuple[str, str], list[list[int]]]:
        """By (split, kind): for each view the jobs of all shards.

        The undistorted half of a kind's views is shared with pristine, so the backbone runs once for both; without
        augmentation they are all the same, and there is one.
        """
        half = self.spec.views // 2
        undistorted = self.spec.views if self.spec.augmented else 1
        jobs: dict[tuple[str, str], list[list[int]]] = {}
        for kind in kinds:
            own = range(undistorted) if kind == PRISTINE else range(half, self.spec.views)
            shared = [] if kind == PRISTINE else jobs[TRAIN, PRISTINE][:half]
            share = 0.0 if kind == PRISTINE else 1.0
            jobs[TRAIN, kind] = [
                *shared,
                *(self._features(TRAIN, kind, share, view) for view in own),
            ]
            share = 0.0 if kind == PRISTINE else 0.5
            jobs[VALIDATION, kind] = [self._features(VALIDATION, kind, share, 0)]
        return jobs

    def _features(self, split: str, kind: str, share: float, view: int) -> list[int]:
        augmented = self.spec.augmented and split == TRAIN
        params = Features(
            split=split,
            kind=kind,
            kind_version=version_of(kind),
            levels=self.spec.kinds.of(kind),
            share=share,
            view=view,
            augmented=augmented,
            architecture=self.spec.architecture,
            # nothing is random about a plain view: one job for all seeds
            seed=self.variant.seed if share or augmented else None,
            device=self.spec.device,
        )
        return [
            self._add_of_shard(params, f"{kind} view {view}", shard, self.backbone)
            for shard in self.prepared[split]
        ]

    def _train_experts(self, learned: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
        """On cached features, pristine first: the other experts start from its heads."""
        kinds = (PRISTINE, *(kind for of_expert in learned.values() for kind in of_expert))
        features = self._training_features(dict.fromkeys(kinds))
        jobs: dict[str, int] = {}
        for expert, kinds in learned.items():
            undistorted = self.spec.views // 2 if kinds else self.spec.views
            repeats = 1 if self.spec.augmented else undistorted
            params = TrainExpert(
                expert=expert,
                kinds=kinds,
                classes=self.classes,
                repeats=repeats,
                training=self.spec.expert,
                fixed_order=self._fidelity.fixed_order,
                seed=self.variant.seed,
            )
            views = [
                view
                for split in (TRAIN, VALIDATION)
                for kind in kinds or (PRISTINE,)
                for view in features[split, kind]
            ]
            start = [jobs[PRISTINE]] if kinds else []
            # an edge per input, in the order of the views: a set would lose it
            shared_once = dict.fromkeys(job for view in views for job in view)
            jobs[expert] = self._add(params, expert, [*shared_once, *start])
        return jobs

    def _adapt_expert(
        self, expert: str, kinds: tuple[str, ...], backbone_learning_rate: float, reads: list[int]
    ) -> int:
        spec = self.spec
        params = AdaptExpert(
            expert=expert,
            kinds=kinds,
            kind_versions=tuple(version_of(kind) for kind in kinds),
            levels=tuple(self.spec.kinds.of(kind) for kind in kinds),
            classes=self.classes,
            architecture=spec.architecture,
            augmented=self.spec.augmented,
            training=spec.expert,
            backbone_learning_rate=backbone_learning_rate,
            fixed_order=self._fidelity.fixed_order,
            seed=self.variant.seed,
            device=spec.device,
            threads=spec.training.threads,
            backbone_version=recipe(spec.architecture.backbone).version,
        )
        return self._add(params, expert, reads)
