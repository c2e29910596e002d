"""train-expert: four heads on cached vectors, and one temperature for each."""

import numpy as np

from db.artifacts import Tensors
from db.jobs import Rows
from db.results import Expert, Temperature
from early_exit.calibration import fit_temperatures
from early_exit.network import load_heads, predict_logits
from early_exit.training import Fit, Settings, train_heads
from early_exit.vocabulary import PRISTINE
from tasks.epochs import epoch_rows
from tasks.job_io import Input, JobContext, Output
from tasks.params import TrainExpert

HEADS = "heads."


def compute(params: TrainExpert, context: JobContext) -> Output:
    """``heads.*`` and ``temperatures`` float64 (4,).

    Rows in ``experts``, ``temperatures`` and ``training_epochs``.
    """
    vectors, labels = _vectors(_epoch(params, context))
    held_out, held_out_labels = _vectors(context.inputs("features", split="validation"))
    pristine = context.inputs("train-expert")
    fit = train_heads(
        vectors,
        labels,
        held_out,
        held_out_labels,
        classes=params.classes,
        start=heads_of(pristine[0].load()) if pristine else None,
        settings=Settings(**vars(params.training)),
        seed=params.seed,
        threads=1,
        checkpoint=context.checkpoint,
        fixed_order=params.fixed_order,
    )
    temperatures = fit_temperatures(predict_logits(load_heads(fit.weights), held_out), held_out_labels)
    heads = {HEADS + name: array for name, array in fit.weights.items()}
    rows = expert_rows(params.expert, params.classes, fit, temperatures)
    return Output({**heads, "temperatures": temperatures}, rows)


def expert_rows(expert: str, classes: int, fit: Fit, temperatures: np.ndarray) -> Rows:
    """Rows of ``experts``, ``temperatures`` and ``training_epochs`` of one trained expert."""
    best = fit.epochs[fit.best_epoch - 1]
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


def _epoch(params: TrainExpert, context: JobContext) -> list[Input]:
    """The inputs of one epoch; a distorted kind's half of them undistorted (spec §6)."""
    undistorted = context.inputs("features", split="train", kind=PRISTINE) * params.repeats
    if params.expert == PRISTINE:
        return undistorted
    return undistorted + context.inputs("features", split="train", kind=params.expert)


def _vectors(sources: list[Input]) -> tuple[list[np.ndarray], np.ndarray]:
    """Vectors of all views in the order of the plan, view by view: no shard size changes it."""
    shards = [source.load() for source in sources]
    exits = [np.concatenate([shard[f"exit_{number}"] for shard in shards]) for number in (1, 2, 3, 4)]
    return exits, np.concatenate([shard["labels"] for shard in shards])
