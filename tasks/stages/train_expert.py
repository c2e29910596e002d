"""train-expert: four heads on cached vectors, and one temperature for each."""

from collections.abc import Sequence

import numpy as np

from db.artifacts import Tensors
from db.jobs import Rows
from db.results.tables import Expert, Temperature
from early_exit.batches import Examples, TrainingData
from early_exit.calibration import fit_temperatures
from early_exit.network import load_heads, predict_logits
from early_exit.splits import TRAIN, VALIDATION
from early_exit.training import Fit, Setup, train_heads
from early_exit.vocabulary import EXITS, PRISTINE
from tasks.epochs import epoch_rows
from tasks.images import in_turn
from tasks.job_io import Input, JobContext, Output
from tasks.params import TrainExpert

HEADS = "heads."


def compute(params: TrainExpert, context: JobContext) -> Output:
    """``heads.*`` and ``temperatures`` float64 (4,).

    Rows in ``experts``, ``temperatures`` and ``training_epochs``.
    """
    # the pristine expert has no kinds to learn: undistorted images validate it
    held_out = _vectors(_views(context, VALIDATION, params.kinds or (PRISTINE,)))
    pristine = context.inputs("train-expert")  # none where this is the pristine expert itself
    fit = train_heads(
        heads_of(pristine[0].load()) if pristine else None,
        TrainingData(_vectors(_epoch(params, context)), held_out, params.classes),
        params.training,
        Setup(params.seed, fixed_order=params.fixed_order, checkpoint=context.checkpoint),
    )
    logits = predict_logits(load_heads(fit.weights), held_out.arrays)
    temperatures = fit_temperatures(logits, held_out.labels)
    heads = {HEADS + name: array for name, array in fit.weights.items()}
    rows = expert_rows(params.expert, params.classes, fit, temperatures)
    return Output({**heads, "temperatures": temperatures}, rows)


def expert_rows(expert: str, classes: int, fit: Fit, temperatures: np.ndarray) -> Rows:
    """Rows of ``experts``, ``temperatures`` and ``training_epochs`` of one trained expert."""
    best = fit.epochs[fit.best_epoch - 1]  # epochs count from 1
    trained = {
        "expert": expert,
        "classes": classes,
        "best_epoch": fit.best_epoch,
        "validation_loss": best.validation_loss,
    }
    fitted = [
        {"exit": number, "expert": expert, "temperature": temperature}
        for number, temperature in enumerate(temperatures.tolist(), start=1)
    ]
    return {Expert: [trained], Temperature: fitted, **epoch_rows(f"{expert} expert", fit.epochs)}


def heads_of(expert: Tensors) -> Tensors:
    """The heads' own tensors of an expert's artifact."""
    return {name.removeprefix(HEADS): array for name, array in expert.items() if name.startswith(HEADS)}


def _epoch(params: TrainExpert, context: JobContext) -> list[Tensors]:
    """The vectors of one epoch; half of them undistorted where there is a distortion to learn (docs/paper.md §6)."""
    # the same arrays listed again, so that this half weighs as much as the other
    undistorted = _views(context, TRAIN, (PRISTINE,)) * params.repeats
    return undistorted + _views(context, TRAIN, params.kinds)


def _views(context: JobContext, split: str, kinds: Sequence[str]) -> list[Tensors]:
    """Every shard of every view; of several kinds each image takes one in turn, in each view another."""
    by_kind = [context.inputs("features", split=split, kind=kind) for kind in kinds]
    return [_in_turn(sources) for sources in zip(*by_kind, strict=True)]


def _in_turn(sources: Sequence[Input]) -> Tensors:
    """The same shard and view of each kind as one: of each image the vectors of the kind whose turn it is."""
    shards = [source.load() for source in sources]
    # each view moves the turn on by one: over the views an image takes on every kind
    images = shards[0]["images"] + sources[0].params["view"]
    return {name: in_turn([shard[name] for shard in shards], images) for name in shards[0]}


def _vectors(shards: list[Tensors]) -> Examples:
    """Vectors of all views in the order of the plan, view by view: no shard size changes it."""
    exits = (np.concatenate([shard[f"exit_{number}"] for shard in shards]) for number in EXITS)
    return Examples(tuple(exits), np.concatenate([shard["labels"] for shard in shards]))
