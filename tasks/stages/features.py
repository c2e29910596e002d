"""features: the pooled vectors of the four exits, one pass of the backbone per image."""

import functools

from early_exit.features import extract
from early_exit.network import Backbone, fold_batchnorm, load_weights
from early_exit.settings import Architecture
from tasks.backbone import planned
from tasks.images import View, changed, load_images
from tasks.job_io import Input, JobContext, Output
from tasks.params import Features


def compute(params: Features, context: JobContext) -> Output:
    """``exit_1`` … ``exit_4`` float32 (N, D_k), ``labels`` and ``images`` int64 (N,)."""
    shard = load_images(context)
    view = View(
        "features",
        params.kind,
        params.kind_version,
        params.levels,
        params.share,
        params.view,
        augmented=params.augmented,
        seed=params.seed or 0,
    )
    source = context.input("train-backbone", "adapt-expert")
    backbone = folded(source, planned(params.architecture, source.params["backbone_version"]))
    vectors = extract(backbone, changed(shard, view), params.device, threads=1)  # (N, D_k) each
    exits = {f"exit_{number}": vector for number, vector in enumerate(vectors, start=1)}
    return Output({**exits, "labels": shard["labels"], "images": shard["images"]})


# one, since shards of the same backbone mostly follow each other
@functools.lru_cache(maxsize=1)
def folded(source: Input, architecture: Architecture) -> Backbone:
    """The backbone ready for inference, kept for the next shard: building it takes as long as a shard's passes."""
    # adapt-expert's artifact holds heads and temperatures as well
    tensors = {name: tensor for name, tensor in source.load().items() if name.startswith("features.")}
    return fold_batchnorm(load_weights(tensors, architecture))
