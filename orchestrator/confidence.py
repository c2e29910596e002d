"""How well the experts' confidence says their accuracy, before and after calibration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore, BadArtifact
from db.models import Artifact, Job
from db.results import Prediction
from early_exit.exits import softmax_confidence
from early_exit.reliability import BINS, Reliability, reliability
from early_exit.vocabulary import EXITS
from orchestrator.results import estimate

Answers = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Confidence and whether it was right, of one shape."""

Key = tuple[str, str, int, str]
"""Fidelity, expert, exit, when."""


@dataclass(frozen=True)
class Confidence:
    """Estimates over seeds, per fidelity, expert, exit and when (``before`` or ``after`` calibration)."""

    bins: pd.DataFrame
    """Columns fidelity, expert, exit, when, confidence, mean and margin of the accuracy; bins with answers only."""
    errors: pd.DataFrame
    """Columns fidelity, expert, exit, when, mean and margin of the expected calibration error."""
    missing: tuple[str, ...]
    """What could not be read, a line each."""


def confidence_of(session: Session, store: ArtifactStore, run_id: int) -> Confidence:
    """Of every expert on the test images of its own kind, all levels together.

    After calibration from the rows of ``predictions``, before from the logits that ``predict`` has stored.
    """
    missing: list[str] = []
    found: dict[Key, list[Reliability]] = {}
    for answers in (_before(session, store, run_id, missing), _after(session, run_id)):
        for key, (confidence, correct) in answers:
            found.setdefault(key, []).append(reliability(confidence, correct))
    bins = [line for key, of_seeds in found.items() for line in _bins(key, of_seeds)]
    errors = [
        _named(key) | _estimated([of_seed.ece for of_seed in of_seeds]) for key, of_seeds in found.items()
    ]
    return Confidence(pd.DataFrame(bins), pd.DataFrame(errors), tuple(missing))


def _after(session: Session, run_id: int) -> Iterator[tuple[Key, Answers]]:
    """One seed's answers of one exit at a time."""
    of_run = (Job.run_id == run_id, Prediction.expert == Prediction.kind)
    rows = session.execute(
        select(
            Job.fidelity,
            Prediction.expert,
            Prediction.exit,
            Job.seed,
            Prediction.confidence,
            Prediction.correct,
        )
        .join(Prediction, Prediction.artifact_id == Job.artifact_id)
        .where(*of_run)
    )
    frame = pd.DataFrame(rows, columns=["fidelity", "expert", "exit", "seed", "confidence", "correct"])
    for group, same in frame.groupby(["fidelity", "expert", "exit", "seed"]):
        fidelity, expert, number, _ = cast(tuple[str, str, int, int], group)
        answers = same["confidence"].to_numpy(np.float64), same["correct"].to_numpy(np.bool_)
        yield (fidelity, expert, number, "after"), answers


def _before(
    session: Session, store: ArtifactStore, run_id: int, missing: list[str]
) -> Iterator[tuple[Key, Answers]]:
    """The same from logits; seeds of which a file cannot be read are left out and said."""
    for (fidelity, _, expert), artifacts in _predictions(session, run_id).items():
        try:
            shards = [_uncalibrated(artifact, store) for artifact in artifacts]
        except BadArtifact as error:
            missing.append(f"{error}: {expert} expert, fidelity {fidelity}, before calibration")
            continue
        confidence, correct = (np.concatenate(arrays) for arrays in zip(*shards, strict=True))
        for number in EXITS:
            yield (fidelity, expert, number, "before"), (confidence[:, number - 1], correct[:, number - 1])


def _predictions(session: Session, run_id: int) -> dict[tuple[str, int, str], list[Artifact]]:
    """Artifacts of the finished predict jobs on an expert's own kind, by fidelity, seed and expert."""
    rows = session.execute(
        select(Job, Artifact)
        .join(Artifact, Artifact.id == Job.artifact_id)
        .where(Job.run_id == run_id, Job.stage == "predict")
        .order_by(Job.id)
    )
    found: dict[tuple[str, int, str], list[Artifact]] = {}
    for job, artifact in rows:
        if job.params["expert"] == job.params["kind"]:
            assert job.fidelity is not None  # predict writes rows, which stand under a variant
            assert job.seed is not None
            found.setdefault((job.fidelity, job.seed, job.params["expert"]), []).append(artifact)
    return found


def _uncalibrated(artifact: Artifact, store: ArtifactStore) -> Answers:
    """Confidence at temperature 1, and whether it is right: both (N, 4)."""
    assert artifact.uri is not None  # predict stores its logits
    assert artifact.sha256 is not None
    said = store.read(artifact.uri, artifact.sha256)
    confidence, predicted = softmax_confidence(said["logits"], np.ones(len(EXITS)))
    return confidence, predicted == said["labels"][:, np.newaxis]


def _bins(key: Key, of_seeds: list[Reliability]) -> Iterator[dict[str, Any]]:
    for place in range(BINS):
        filled = [of_seed for of_seed in of_seeds if of_seed.count[place]]
        if filled:
            confidence = np.mean([of_seed.confidence[place] for of_seed in filled])
            accuracy = _estimated([float(of_seed.accuracy[place]) for of_seed in filled])
            yield _named(key) | {"confidence": confidence} | accuracy


def _named(key: Key) -> dict[str, Any]:
    return dict(zip(("fidelity", "expert", "exit", "when"), key, strict=True))


def _estimated(values: list[float]) -> dict[str, Any]:
    found = estimate(values)
    return {"mean": found.mean, "margin": found.margin}
