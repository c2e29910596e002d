"""train-classifier: the network that tells blur, noise and pristine apart by their spectra."""

import numpy as np

from early_exit.classifier import train_classifier
from early_exit.training import Settings
from early_exit.vocabulary import KINDS
from tasks.epochs import epoch_rows
from tasks.job_io import JobContext, Output
from tasks.params import TrainClassifier


def compute(params: TrainClassifier, context: JobContext) -> Output:
    """The classifier's weights; rows in ``training_epochs``."""
    fit = train_classifier(
        _spectra(context, "train"),
        _spectra(context, "validation"),
        Settings(**vars(params.training)),
        seed=params.seed,
        device=params.device,
        threads=params.threads,
        checkpoint=context.checkpoint,
    )
    return Output(fit.weights, epoch_rows("classifier", fit.epochs))


def _spectra(context: JobContext, split: str) -> tuple[np.ndarray, np.ndarray]:
    spectra, kinds = [], []
    for number, kind in enumerate(KINDS):
        for source in context.inputs("spectra", split=split, kind=kind):
            spectra.append(source.load()["spectra"])
            kinds.append(np.full(len(spectra[-1]), number, np.int64))
    return np.concatenate(spectra), np.concatenate(kinds)
