"""Every parameter of the science with its limits, declared here alone: the sections of a spec.

Stages hold them in their parameters, and the functions that compute take them as they are. Standard library only:
planning loads neither torch nor cv2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from early_exit.backbone import MOBILENET_V2, recipe
from early_exit.schedules import SCHEDULES

OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW"}
"""Their classes in ``torch.optim``. Weight decay is an L2 term of the loss in Adam (the paper's), decoupled from it
in AdamW."""

FORBID_EXTRA = {"extra": "forbid"}
"""Read by pydantic: a field that a section does not have is an error."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _one_of(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


@dataclass(frozen=True)
class Architecture:
    """The backbone with ``width`` times its channels; ``stem_stride`` 2, or 1 for images below 100 px."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    width: float = 1.0
    stem_stride: int = 2
    backbone: str = MOBILENET_V2
    """One of ``early_exit.backbones``."""
    drop_blocks: bool = False
    """Leave out the blocks before the branches, as the released code does (docs/paper.md §5); set by a fidelity."""

    def __post_init__(self) -> None:
        followed = recipe(self.backbone).parameters
        _require(0.1 <= self.width <= 2.0, "width must be between 0.1 and 2")
        _require(self.stem_stride in (1, 2), "stem_stride must be 1 or 2")
        for name, only in (("width", 1.0), ("stem_stride", 2)):
            known = name in followed or getattr(self, name) == only
            _require(known, f"{self.backbone} has one {name}: set architecture.{name}={only:g}")
        droppable = "drop_blocks" in followed or not self.drop_blocks
        _require(droppable, f"{self.backbone} has no blocks that it can do without")

    def __str__(self) -> str:
        return f"{self.backbone} of width {self.width:g}"


@dataclass(frozen=True)
class Training:
    """How one network is trained: ``learning_rate`` is the peak of ``schedule``."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    epochs: int = 10  # the released training has no cap (docs/paper.md §12, oddity 8)
    batch_size: int = 32  # this and the next two as released (docs/paper.md §6)
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    patience: int = 10
    """Stop after this many epochs without a better validation loss."""

    def __post_init__(self) -> None:
        _require(0 <= self.epochs <= 10_000, "epochs must be between 0 and 10000")
        _require(1 <= self.batch_size <= 4096, "batch_size must be between 1 and 4096")
        _require(0 < self.learning_rate < 1e7, "learning_rate must be above 0 and finite")  # refuses NaN too
        _require(0 <= self.weight_decay < 1e3, "weight_decay must be 0 or above")
        _require(self.schedule in SCHEDULES, f"schedule is {_one_of(SCHEDULES)}")
        _require(self.patience >= 1, "patience must be 1 or above")


@dataclass(frozen=True)
class BackboneTraining(Training):
    """How the backbone is trained; no epochs keep the given weights, frozen."""

    head_learning_rate: float = 0.0
    """Peak for the heads that train it; 0 for the same as the backbone's."""
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.optimizer in OPTIMIZERS, f"optimizer is {_one_of(OPTIMIZERS)}")
        _require(0 <= self.head_learning_rate < 1e7, "head_learning_rate must be 0 or above and finite")


@dataclass(frozen=True)
class Threads:
    """Threads of the two long trainings: one thread and two give different weights, so it is a parameter."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    threads: int = 2

    def __post_init__(self) -> None:
        _require(1 <= self.threads <= 256, "threads must be between 1 and 256")


@dataclass(frozen=True)
class Measurement:
    """Repetitions of the latency measurement at batch 1."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    warm_ups: int = 50  # as many as open each network's turn in the paper (docs/paper.md §11)
    repeats: int = 200

    def __post_init__(self) -> None:
        _require(0 <= self.warm_ups <= 100_000, "warm_ups must be between 0 and 100000")
        _require(1 <= self.repeats <= 100_000, "repeats must be between 1 and 100000")


@dataclass(frozen=True)
class Synthetic:
    """The built-in dataset: how many images of how many pixels, from which seed."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    images: int = 2000
    size: int = 70
    seed: int = 0

    def __post_init__(self) -> None:
        # ten for each of ten glyphs: a class needs no fewer
        _require(100 <= self.images <= 1_000_000, "images must be between 100 and 1000000")
        _require(self.images % 10 == 0, "images must be a multiple of 10")
        _require(24 <= self.size <= 1024, "size must be between 24 and 1024")
        _require(0 <= self.seed < 2**32, "seed must be between 0 and 4294967295")
