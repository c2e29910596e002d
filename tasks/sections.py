"""The sections of a spec: what of a run's parameters belongs together, each with its limits.

A stage's parameters hold them as they stand here, so that a parameter is declared once on this side and once
in the pure function that it reaches under the same name. Standard library only: planning loads neither torch
nor cv2.
"""

from dataclasses import dataclass
from typing import ClassVar

from early_exit.backbones import MOBILENET_V2, parameters

FORBID_EXTRA = {"extra": "forbid"}
"""Read by pydantic: a field that a section does not have is an error."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class Architecture:
    """The backbone, its width multiplier and the stride of its stem (1 for small synthetic images)."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    width: float = 1.0
    stem_stride: int = 2
    backbone: str = MOBILENET_V2

    def __post_init__(self) -> None:
        followed = parameters(self.backbone)
        _require(0.1 <= self.width <= 2.0, "width must be between 0.1 and 2")
        _require(self.stem_stride in (1, 2), "stem_stride must be 1 or 2")
        for name, only in (("width", 1.0), ("stem_stride", 2)):
            known = name in followed or getattr(self, name) == only
            _require(known, f"{self.backbone} has one {name}: set architecture.{name}={only:g}")


@dataclass(frozen=True)
class Training:
    """How one network is trained."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    patience: int = 10

    def __post_init__(self) -> None:
        _require(0 <= self.epochs <= 10_000, "epochs must be between 0 and 10000")
        _require(1 <= self.batch_size <= 4096, "batch_size must be between 1 and 4096")
        _require(0 < self.learning_rate < 1e7, "learning_rate must be above 0 and finite")
        _require(0 <= self.weight_decay < 1e3, "weight_decay must be 0 or above")
        _require(
            self.schedule in ("one_cycle", "cosine", "cosine_annealing", "constant"),
            "schedule is one_cycle, cosine, cosine_annealing or constant",
        )
        _require(self.patience >= 1, "patience must be 1 or above")


@dataclass(frozen=True)
class BackboneTraining(Training):
    """How the backbone is trained; no epochs keep the given weights, frozen."""

    head_learning_rate: float = 0.0
    """Peak for the heads that train it; 0 for the same as the backbone's."""
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.optimizer in ("adam", "adamw"), "optimizer is adam or adamw")
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
    warm_ups: int = 50
    repeats: int = 200

    def __post_init__(self) -> None:
        _require(0 <= self.warm_ups <= 100_000, "warm_ups must be between 0 and 100000")
        _require(1 <= self.repeats <= 100_000, "repeats must be between 1 and 100000")
