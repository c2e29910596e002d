"""One frozen dataclass per stage: what a job is computed from, besides its inputs.

Standard library only: planning loads neither torch nor cv2. Every field of a stage's dataclass enters the
job's key.
"""

from dataclasses import dataclass
from typing import ClassVar

from early_exit.settings import Architecture, BackboneTraining, Measurement, Training


@dataclass(frozen=True)
class StageParams:
    """What all stages declare: name, version (bumped when output changes), what their key must hold."""

    stage: ClassVar[str]
    version: ClassVar[int]
    libraries: ClassVar[tuple[str, ...]]
    """Names in ``tasks.code.LIBRARIES``, whose major.minor releases are part of the key."""
    writes_rows: ClassVar[bool]
    """Whether users query its rows, so that its jobs are always wanted."""
    deadline_seconds: ClassVar[int]
    """One attempt may take this long before it is killed."""
    alone: ClassVar[bool] = False
    """Whether nothing else may run on its host meanwhile, since it measures time."""
    plans: ClassVar[tuple[str, ...]] = ()
    """Plans that end with this stage: a plan is full-paper's graph, cut short after such jobs."""

    @property
    def queue(self) -> str:
        """The Celery queue that follows from stage and device."""
        return "gpu" if getattr(self, "device", "cpu") == "cuda" else "cpu"


@dataclass(frozen=True)
class Prepare(StageParams):
    """Decode, resize and crop images ``start`` to ``stop`` of a split."""

    stage = "prepare"
    version = 1
    libraries = ("numpy", "pillow")
    writes_rows = False
    deadline_seconds = 1800
    plans = ("distorted-dataset",)

    dataset: str
    """Digest of the dataset."""
    split: str
    start: int
    stop: int  # not included; both count within the split
    image_size: int
    resize: str
    """``margin``: shorter side to 1.1 times the size, then the centre; ``plain``: to the size itself;
    ``squash``: both sides to the size, as the released training does."""


@dataclass(frozen=True)
class Distort(StageParams):
    """Distort prepared test images at one level."""

    stage = "distort"
    version = 1
    libraries = ("numpy", "opencv", "pillow")
    writes_rows = False
    deadline_seconds = 1800
    plans = ("distorted-dataset",)

    kind: str
    kind_version: int
    """The distortion's own, 0 for pristine, here and below."""
    level: int
    seed: int | None
    """None where no random number is drawn, here and below."""


@dataclass(frozen=True)
class Spectra(StageParams):
    """Fourier spectra of images, after distorting each at a level drawn from ``levels``.

    Test images arrive distorted: their ``kind`` is pristine here, and nothing is added. ``form``: ``ours``,
    or what the released code computes for ``released-training`` and at the ``released-edge``.
    """

    stage = "spectra"
    version = 1
    libraries = ("numpy", "opencv", "pillow")
    writes_rows = False
    deadline_seconds = 1800
    plans = ("spectra",)

    split: str
    kind: str
    kind_version: int
    levels: tuple[int, ...]
    spectrum_size: int
    form: str
    seed: int | None


@dataclass(frozen=True)
class TrainClassifier(StageParams):
    """Train the distortion classifier on spectra of train, select on validation."""

    stage = "train-classifier"
    version = 1
    libraries = ("numpy", "torch")
    writes_rows = True
    deadline_seconds = 24 * 3600
    plans = ("distortion-classifier",)

    kinds: tuple[str, ...]
    """In label order."""
    spectrum_size: int
    training: Training
    seed: int
    device: str
    threads: int


@dataclass(frozen=True)
class Classify(StageParams):
    """Predict the distortion kind of test images from their spectra."""

    stage = "classify"
    version = 1
    libraries = ("numpy", "torch")
    writes_rows = True
    deadline_seconds = 1800
    plans = ("distortion-classifier",)

    kinds: tuple[str, ...]
    """What the classifier tells apart, in label order."""
    kind: str
    level: int
    spectrum_size: int


@dataclass(frozen=True)
class TrainBackbone(StageParams):
    """Train the shared backbone on pristine images, or take the given weights unchanged."""

    stage = "train-backbone"
    version = 1
    libraries = ("numpy", "torch", "torchvision")
    writes_rows = True
    deadline_seconds = 7 * 24 * 3600

    classes: int
    architecture: Architecture
    weights: str | None
    """SHA-256 of the weights' file, None to start from random ones."""
    augmented: bool
    training: BackboneTraining
    seed: int | None
    device: str
    threads: int
    backbone_version: int
    """That of the backbone's file, here and below."""


@dataclass(frozen=True)
class Features(StageParams):
    """Pooled vectors of the four exits: the backbone runs once per image, distortion and view.

    ``share`` of the images, drawn per image, is distorted at a level drawn from ``levels``; training views
    are augmented afterwards. Test images arrive distorted (``kind`` pristine, ``share`` 0).
    """

    stage = "features"
    version = 1
    libraries = ("numpy", "opencv", "pillow", "torch", "torchvision")
    writes_rows = False
    deadline_seconds = 3 * 3600

    split: str
    kind: str
    kind_version: int
    levels: tuple[int, ...]
    share: float
    view: int
    augmented: bool
    architecture: Architecture
    seed: int | None
    device: str


@dataclass(frozen=True)
class TrainExpert(StageParams):
    """Train the four heads of one expert on cached vectors and fit their temperatures.

    Half of an epoch is undistorted; the other half is of ``kinds``, in equal shares (of none for pristine).
    """

    stage = "train-expert"
    version = 2
    libraries = ("numpy", "torch")
    writes_rows = True
    deadline_seconds = 6 * 3600
    plans = ("experts",)

    expert: str
    kinds: tuple[str, ...]
    classes: int
    repeats: int
    """How often an undistorted vector stands in an epoch: more than once where one stands for equal views."""
    training: Training
    fixed_order: bool
    seed: int


@dataclass(frozen=True)
class AdaptExpert(StageParams):
    """Train an expert's heads together with the backbone, or its BatchNorm alone: a pass per image and epoch.

    Half of the images are distorted, by one of ``kinds`` drawn for each. Its artifact holds the adapted
    backbone as well as the heads and temperatures.
    """

    stage = "adapt-expert"
    version = 2
    libraries = ("numpy", "opencv", "pillow", "torch", "torchvision")
    writes_rows = True
    deadline_seconds = 7 * 24 * 3600
    plans = ("experts",)

    expert: str
    kinds: tuple[str, ...]
    kind_versions: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    """Of each of ``kinds``."""
    classes: int
    architecture: Architecture
    augmented: bool
    training: Training
    backbone_learning_rate: float
    """0: its weights are frozen, and only BatchNorm's statistics move."""
    fixed_order: bool
    seed: int
    device: str
    threads: int
    backbone_version: int


@dataclass(frozen=True)
class Predict(StageParams):
    """Confidence and class of one expert at each exit for one test shard, kind and level."""

    stage = "predict"
    version = 1
    libraries = ("numpy", "torch")
    writes_rows = True
    deadline_seconds = 1800

    expert: str
    kind: str
    level: int


@dataclass(frozen=True)
class Sweep(StageParams):
    """Count exits and correct answers of one policy at all 101 thresholds."""

    stage = "sweep"
    version = 1
    libraries = ("numpy",)
    writes_rows = True
    deadline_seconds = 1800
    plans = ("accuracy", "offloading", "full-paper")

    policy: str
    kind: str
    level: int


@dataclass(frozen=True)
class Reliability(StageParams):
    """How well the confidence of each exit of one expert predicts its accuracy, without and with temperatures."""

    stage = "reliability"
    version = 1
    libraries = ("numpy",)
    writes_rows = True
    deadline_seconds = 1800
    plans = ("accuracy", "full-paper")

    expert: str
    kind: str
    level: int


@dataclass(frozen=True)
class Outage(StageParams):
    """How often batches of one policy are right less often than p_tar, at 25 thresholds."""

    stage = "outage"
    version = 1
    libraries = ("numpy",)
    writes_rows = True
    deadline_seconds = 1800
    plans = ("accuracy", "full-paper")

    policy: str
    kind: str
    level: int
    seed: int


@dataclass(frozen=True)
class PayloadAccuracy(StageParams):
    """What the cloud answers when the feature maps of one test shard are sent in each form."""

    stage = "payload-accuracy"
    version = 1
    libraries = ("numpy", "torch", "torchvision")
    writes_rows = True
    deadline_seconds = 3 * 3600
    plans = ("latency", "full-paper")

    expert: str
    kind: str
    level: int
    architecture: Architecture
    device: str


@dataclass(frozen=True)
class Measure(StageParams):
    """Time the parts of an inference, alone on its device."""

    stage = "measure"
    alone = True
    version = 3
    libraries = ("numpy", "opencv", "pillow", "torch", "torchvision")
    writes_rows = True
    deadline_seconds = 3600

    architecture: Architecture
    classes: int
    spectrum_size: int
    released_spectra: bool
    measurement: Measurement
    device: str
    hardware: str
    """CPU or GPU model that the run was planned for: times of one machine say nothing about another. The rows name
    what was measured."""


@dataclass(frozen=True)
class Latency(StageParams):
    """End-to-end latency of one policy over every network at the headline threshold, for every payload."""

    stage = "latency"
    version = 3
    libraries = ("numpy",)
    writes_rows = True
    deadline_seconds = 1800
    plans = ("latency", "full-paper")

    policy: str
    kind: str
    level: int
    p_tar: float


@dataclass(frozen=True)
class Deadlines(StageParams):
    """How often batches of one policy are wrong or late, over every network and for 51 target times."""

    stage = "deadlines"
    version = 1
    libraries = ("numpy",)
    writes_rows = True
    deadline_seconds = 1800
    plans = ("latency", "full-paper")

    policy: str
    kind: str
    level: int
    p_tar: float
    payload: str
    seed: int


STAGES: dict[str, type[StageParams]] = {params.stage: params for params in StageParams.__subclasses__()}
"""Every stage by name, in the order of the graph, as above; the Celery task has the same name."""
