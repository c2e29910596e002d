"""train-classifier: the network that tells kinds of distortion apart by their spectra."""

import numpy as np

from early_exit.batches import Examples, TrainingData
from early_exit.classifier import train_classifier
from early_exit.splits import TRAIN, VALIDATION
from early_exit.training import Setup
from tasks.epochs import epoch_rows
from tasks.job_io import JobContext, Output
from tasks.params import TrainClassifier


def compute(params: TrainClassifier, context: JobContext) -> Output:
    """The classifier's weights; rows in ``training_epochs``."""
    train, validation = (_spectra(params, context, split) for split in (TRAIN, VALIDATION))
    fit = train_classifier(
        TrainingData(train, validation, classes=len(params.kinds)),
        params.training,
        Setup(params.seed, params.device, params.threads, checkpoint=context.checkpoint),
    )
    return Output(fit.weights, epoch_rows("classifier", fit.epochs))


def _spectra(params: TrainClassifier, context: JobContext, split: str) -> Examples:
    spectra, labels = [], []
    for number, kind in enumerate(params.kinds):
        for source in context.inputs("spectra", split=split, kind=kind):
            spectra.append(source.load()["spectra"])
            # a kind's place in ``kinds`` is its label
            labels.append(np.full(len(spectra[-1]), number, np.int64))
    return Examples((np.concatenate(spectra),), np.concatenate(labels))
