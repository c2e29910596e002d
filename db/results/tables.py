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

    artifact_id: Mapped[int] = mapped_column(
        ForeignKey("artifacts.id", ondelete="CASCADE"),
        primary_key=True,
        sort_order=-1,  # first in the key, so that a run's rows are found by their artifacts
    )


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
    """The calibration of one exit of one expert (docs/paper.md §7)."""

    __tablename__ = "temperatures"
    __table_args__ = (CheckConstraint("temperature > 0"), CheckConstraint("exit BETWEEN 1 AND 4"))

    exit: Mapped[int] = mapped_column(primary_key=True)
    expert: Mapped[str]
    temperature: Mapped[float]


class Classification(_Result):
    """What the distortion classifier predicts for one test image at one kind and level."""

    __tablename__ = "classifications"
    __table_args__ = (CheckConstraint(FRACTION.format("confidence")),)

    image: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    level: Mapped[int]
    predicted: Mapped[str]
    confidence: Mapped[float]


class Prediction(_Result):
    """What one exit of one expert answers for one test image at one kind and level."""

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

    ``r_k`` images have a confidence at k that reaches p_tar, whatever happened before ("with repo", docs/paper.md §9).
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


class ReliabilityBin(_Result):
    """The test images whose confidence at one exit lies in ((bin − 1)/15, bin/15]; an empty bin has no row.

    ``calibrated``: divided by the exit's temperature, else by 1.
    """

    __tablename__ = "reliability_bins"
    __table_args__ = (
        CheckConstraint("exit BETWEEN 1 AND 4"),
        CheckConstraint("bin BETWEEN 1 AND 15"),
        CheckConstraint("n > 0"),
        CheckConstraint(FRACTION.format("mean_confidence")),
        CheckConstraint(FRACTION.format("accuracy")),
    )

    exit: Mapped[int] = mapped_column(primary_key=True)
    calibrated: Mapped[bool] = mapped_column(primary_key=True)
    bin: Mapped[int] = mapped_column(primary_key=True)
    expert: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    n: Mapped[int]
    mean_confidence: Mapped[float]
    accuracy: Mapped[float]


class Outage(_Result):
    """Batches of one policy whose accuracy is below p_tar, as a mean over shuffles of the ``n`` test images.

    Intervals are half the width of a 95 % interval over the shuffles. ``batches_without_edge``: the share of
    batches of which no image leaves on the edge; they count as no outage there.
    """

    __tablename__ = "outages"
    __table_args__ = (
        CheckConstraint(FRACTION.format("p_tar")),
        CheckConstraint("batch_size BETWEEN 1 AND n"),
        CheckConstraint("shuffles > 1"),
        CheckConstraint(FRACTION.format("edge_outage")),
        CheckConstraint(FRACTION.format("overall_outage")),
        CheckConstraint(FRACTION.format("batches_without_edge")),
        CheckConstraint("edge_ci95 >= 0 AND overall_ci95 >= 0", name="outages_have_intervals"),
    )

    p_tar: Mapped[float] = mapped_column(primary_key=True)
    policy: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    n: Mapped[int]
    batch_size: Mapped[int]
    shuffles: Mapped[int]
    edge_outage: Mapped[float]
    edge_ci95: Mapped[float]
    overall_outage: Mapped[float]
    overall_ci95: Mapped[float]
    batches_without_edge: Mapped[float]


class PayloadAnswers(_Result):
    """Answers of the final exit to the ``n`` images of a test shard, their feature maps sent as ``payload``.

    ``agreeing``: equal to those from float32.
    """

    __tablename__ = "payload_answers"
    __table_args__ = (
        CheckConstraint("agreeing BETWEEN 0 AND n"),
        CheckConstraint("correct BETWEEN 0 AND n"),
        CheckConstraint("payload <> 'float32' OR agreeing = n", name="float32_agrees_with_itself"),
    )

    payload: Mapped[str] = mapped_column(primary_key=True)
    expert: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    n: Mapped[int]
    agreeing: Mapped[int]
    correct: Mapped[int]


class StageTime(_Result):
    """Median seconds of one part of an inference at batch 1.

    ``payload_bytes``: what is sent, for ``encode_*`` (the feature map) and ``whole`` (the image itself); else NULL.
    """

    __tablename__ = "stage_times"
    __table_args__ = (CheckConstraint("seconds >= 0"),)

    part: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str]
    hardware: Mapped[str]
    seconds: Mapped[float]
    payload_bytes: Mapped[int | None]


class Latency(_Result):
    """End-to-end seconds of one policy over one network and as one payload, over all test images."""

    __tablename__ = "latencies"

    network: Mapped[str] = mapped_column(primary_key=True)
    payload: Mapped[str] = mapped_column(primary_key=True)
    policy: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    p_tar: Mapped[float]
    n: Mapped[int]
    offloaded: Mapped[int]
    mean_seconds: Mapped[float]
    p50_seconds: Mapped[float]
    p95_seconds: Mapped[float]
    classifier_seconds: Mapped[float]
    edge_seconds: Mapped[float]
    link_seconds: Mapped[float]
    cloud_seconds: Mapped[float]


class MissedDeadline(_Result):
    """Batches of one policy whose accuracy is below p_tar or whose mean time is above t_tar; see ``Outage``."""

    __tablename__ = "missed_deadlines"
    __table_args__ = (
        CheckConstraint("t_tar_seconds >= 0"),
        CheckConstraint(FRACTION.format("p_tar")),
        CheckConstraint("batch_size BETWEEN 1 AND n"),
        CheckConstraint("shuffles > 1"),
        CheckConstraint(FRACTION.format("missed")),
        CheckConstraint("ci95 >= 0"),
    )

    network: Mapped[str] = mapped_column(primary_key=True)
    t_tar_seconds: Mapped[float] = mapped_column(primary_key=True)
    policy: Mapped[str]
    kind: Mapped[str]
    level: Mapped[int]
    p_tar: Mapped[float]
    payload: Mapped[str]
    n: Mapped[int]
    batch_size: Mapped[int]
    shuffles: Mapped[int]
    missed: Mapped[float]
    ci95: Mapped[float]
