"""What a policy is told about each test image: the confidences and answers of the expert it asks."""

from dataclasses import dataclass

import numpy as np

from db.artifacts import Tensors
from early_exit.policies import Policy
from tasks.job_io import Input, JobContext


@dataclass(frozen=True)
class Answers:
    """Of N images: ``confidence`` float64 (N, 4), ``predicted`` int64 (N, 4) and ``labels`` int64 (N,)."""

    confidence: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray


def answers(context: JobContext, policy: Policy, kind: str) -> Answers:
    """The answers of the expert that ``policy`` asks for each image of true kind ``kind``."""
    shards: dict[str, list[Input]] = {}
    for source in context.inputs("predict"):
        shards.setdefault(source.params["expert"], []).append(source)
    predictions = {
        expert: _concatenated([source.load() for source in sources]) for expert, sources in shards.items()
    }
    # every expert has predicted the same images in the same order
    labels = next(iter(predictions.values()))["labels"]
    chosen = _chosen(context, policy, kind, len(labels))
    # an image's own expert may be another than its neighbour's
    rows = [predictions[expert] for expert in chosen]
    return Answers(
        np.stack([arrays["confidence"][i] for i, arrays in enumerate(rows)]),  # (N, 4)
        np.stack([arrays["predicted"][i] for i, arrays in enumerate(rows)]),  # (N, 4)
        labels,
    )


def _chosen(context: JobContext, policy: Policy, kind: str, count: int) -> list[str]:
    """The expert that decides about each of ``count`` images."""
    if not policy.asks_classifier:
        return [policy.expert_for(kind)] * count
    classified = context.inputs("classify")
    predicted = np.concatenate([source.load()["predicted"] for source in classified])  # (N,)
    kinds = classified[0].params["kinds"]
    return [policy.expert_for(kind, kinds[number]) for number in predicted]


def _concatenated(shards: list[Tensors]) -> Tensors:
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}  # (N, …) each
