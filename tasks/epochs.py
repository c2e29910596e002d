"""Rows of ``training_epochs``, the same for every network."""

from collections.abc import Iterable
from dataclasses import asdict

from db.jobs import Rows
from db.results.tables import TrainingEpoch
from early_exit.checkpoint import Epoch


def epoch_rows(network: str, epochs: Iterable[Epoch]) -> Rows:
    """One row per epoch of a training."""
    return {TrainingEpoch: [{"network": network, **asdict(epoch)} for epoch in epochs]}
