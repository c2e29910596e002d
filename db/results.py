"""One table per shape of result; every row names the artifact it belongs to.

Images are positions in the dataset (``images.index``), kinds and levels those of the distortion, confidences
and rates fractions of 1, times seconds.
"""

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.models import Base

FRACTION = "{0} >= 0 AND {0} <= 1"


class _Result(Base):
    __abstract__ = True

    artifact_id: Mapped[int] = mapped_column(ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True)


class Expert(_Result):
    """Four trained heads."""

    __tablename__ = "experts"

    expert: Mapped[str]
    classes: Mapped[int]
    best_epoch: Mapped[int]
    validation_loss: Mapped[float]


class TrainingEpoch(_Result):
    """One epoch of a training (classifier, backbone or expert); losses are mean cross-entropies in nats."""

    __tablename__ = "training_epochs"
    __table_args__ = (CheckConstraint(FRACTION.format("validation_accuracy")),)

    epoch: Mapped[int] = mapped_column(primary_key=True)
    network: Mapped[str]
    train_loss: Mapped[float]
    validation_loss: Mapped[float]
    validation_accuracy: Mapped[float]
    learning_rate: Mapped[float]


class Temperature(_Result):
    """The calibration of one exit of one expert (spec §7)."""

    __tablename__ = "temperatures"
    __table_args__ = (CheckConstraint("temperature > 0"), CheckConstraint("exit BETWEEN 1 AND 4"))

    exit: Mapped[int] = mapped_column(primary_key=True)
    expert: Mapped[str]
    temperature: Mapped[float]


class Classification(_Result):
    """What the distortion classifier sees in one test image at one kind and level."""

    __tablename__ = "classifications"
    __table_args__ = (CheckConstraint(FRACTION.format("confidence")),)

    image: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    level: Mapped[int]
    seen: Mapped[str]
    confidence: Mapped[float]


class Prediction(_Result):
    """What one exit of one expert says of one test image at one kind and level."""

    __tablename__ = "predictions"
    __table_args__ = (CheckConstraint(FRACTION.format("confidence")), CheckConstraint("exit BETWEEN 1 AND 4"))

    image: Mapped[int] = mapped_column(primary_key=True)
    exit: Mapped[int] = mapped_column(primary_key=True)
    expert: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    confidence: Mapped[float]
    predicted: Mapped[int]
    correct: Mapped[bool]


class SweepPoint(_Result):
    """Counts of one policy at one threshold: of ``n`` images ``n_k`` exit at k, ``c_k`` of them right.

    ``r_k`` images have a confidence at k that reaches p_tar, whatever happened before ("with repo", spec §9).
    """

    __tablename__ = "sweep_points"
    __table_args__ = (
        CheckConstraint(FRACTION.format("p_tar")),
        CheckConstraint("n1 + n2 + n3 + n4 = n", name="every_image_exits_once"),
        CheckConstraint("c1 <= n1 AND c2 <= n2 AND c3 <= n3 AND c4 <= n4", name="correct_are_among_exited"),
    )

    p_tar: Mapped[float] = mapped_column(primary_key=True)
    policy: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    n: Mapped[int]
    n1: Mapped[int]
    n2: Mapped[int]
    n3: Mapped[int]
    n4: Mapped[int]
    c1: Mapped[int]
    c2: Mapped[int]
    c3: Mapped[int]
    c4: Mapped[int]
    r1: Mapped[int]
    r2: Mapped[int]
    r3: Mapped[int]


class StageTime(_Result):
    """Median seconds of one part of an inference at batch 1, and the bytes that a payload takes."""

    __tablename__ = "stage_times"
    __table_args__ = (CheckConstraint("seconds >= 0"),)

    part: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str]
    hardware: Mapped[str]
    seconds: Mapped[float]
    payload_bytes: Mapped[int | None]


class Latency(_Result):
    """End-to-end seconds of one policy over one network profile, over all test images of a kind and level."""

    __tablename__ = "latencies"

    policy: Mapped[str]
    profile: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    p_tar: Mapped[float]
    payload: Mapped[str]
    n: Mapped[int]
    offloaded: Mapped[int]
    mean_seconds: Mapped[float]
    p50_seconds: Mapped[float]
    p95_seconds: Mapped[float]
    classifier_seconds: Mapped[float]
    edge_seconds: Mapped[float]
    link_seconds: Mapped[float]
    cloud_seconds: Mapped[float]
