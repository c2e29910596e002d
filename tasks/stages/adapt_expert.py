"""adapt-expert: an expert's heads, trained while the backbone or its BatchNorm adapts too."""

import numpy as np

from db.artifacts import Tensors
from early_exit.adapting import Adapting, adapt
from early_exit.batches import Examples, TrainingData
from early_exit.calibration import fit_temperatures
from early_exit.distortion import distort
from early_exit.features import extract
from early_exit.images import augment
from early_exit.network import fold_batchnorm, load_heads, load_weights, predict_logits
from early_exit.splits import TRAIN, VALIDATION
from early_exit.training import Setup
from tasks.backbone import planned
from tasks.images import View, changed, examples, in_turn
from tasks.job_io import JobContext, Output
from tasks.params import AdaptExpert
from tasks.stages.train_expert import HEADS, expert_rows, heads_of

SHARE = 0.5
"""Of the images, distorted at a level drawn for each (docs/paper.md §6)."""


def compute(params: AdaptExpert, context: JobContext) -> Output:
    """``features.*``, ``heads.*`` and ``temperatures`` float64 (4,).

    Rows in ``experts``, ``temperatures`` and ``training_epochs``.
    """
    architecture = planned(params.architecture, params.backbone_version)
    held_out = _held_out(params, context)
    start = Adapting(
        load_weights(context.input("train-backbone").load(), architecture),
        heads_of(context.input("train-expert").load()),
        params.backbone_learning_rate,
    )
    fit = adapt(
        start,
        TrainingData(examples(context, TRAIN), held_out, params.classes),
        lambda image, rng: _view(params, image, rng),
        params.training,
        Setup(params.seed, params.device, params.threads, params.fixed_order, context.checkpoint),
    )
    backbone, heads = fit.weights_of("backbone"), fit.weights_of("heads")
    # temperatures are fitted to logits made as those of the test images are
    folded = fold_batchnorm(load_weights(backbone, architecture))
    vectors = extract(folded, held_out.arrays[0], params.device)
    temperatures = fit_temperatures(predict_logits(load_heads(heads), vectors), held_out.labels)
    arrays: Tensors = {**backbone, **{HEADS + name: array for name, array in heads.items()}}
    rows = expert_rows(params.expert, params.classes, fit, temperatures)
    return Output(arrays | {"temperatures": temperatures}, rows)


def _view(params: AdaptExpert, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < SHARE:
        number = int(rng.integers(len(params.kinds)))
        image = distort(image, params.kinds[number], int(rng.choice(params.levels[number])), rng)
    return augment(image, rng) if params.augmented else image


def _held_out(params: AdaptExpert, context: JobContext) -> Examples:
    """The validation images as ``features`` distorts them: the same for every way to train an expert."""
    views = [
        View("features", kind, version, levels, SHARE, 0, augmented=False, seed=params.seed)
        for kind, version, levels in zip(params.kinds, params.kind_versions, params.levels, strict=True)
    ]
    shards = [source.load() for source in context.inputs("prepare", split=VALIDATION)]
    # (n, H, W, 3) each
    images = [in_turn([changed(shard, view) for view in views], shard["images"]) for shard in shards]
    return Examples((np.concatenate(images),), np.concatenate([shard["labels"] for shard in shards]))
