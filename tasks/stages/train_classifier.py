"""train-classifier: the network that tells kinds of distortion apart by their spectra."""

import numpy as np

from early_exit.classifier import train_classifier
from early_exit.training import Settings
from tasks.epochs import epoch_rows
from tasks.job_io import JobContext, Output
from tasks.params import TrainClassifier


def compute(params: TrainClassifier, context: JobContext) -> Output:
    """The classifier's weights; rows in ``training_epochs``."""
    fit = train_classifier(
        _spectra(params, context, "train"),
        _spectra(params, context, "validation"),
        Settings(**vars(params.training)),
        seed=params.seed,
        device=params.device,
        threads=params.threads,
        checkpoint=context.checkpoint,
        kinds=len(params.kinds),
    )
    return Output(fit.weights, epoch_rows("classifier", fit.epochs))


def _spectra(params: TrainClassifier, context: JobContext, split: str) -> tuple[np.ndarray, np.ndarray]:
    spectra, labels = [], []
    for number, kind in enumerate(params.kinds):
        for source in context.inputs("spectra", split=split, kind=kind):
            spectra.append(source.load()["spectra"])
            labels.append(np.full(len(spectra[-1]), number, np.int64))
    return np.concatenate(spectra), np.concatenate(labels)
