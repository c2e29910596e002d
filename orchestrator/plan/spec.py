"""What a run should compute: profiles, overrides, validation, and one-line errors."""

import dataclasses
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from early_exit.backbone import recipe
from early_exit.distortion import distortion, known
from early_exit.exits import THRESHOLDS
from early_exit.fidelity import FIDELITIES
from early_exit.kinds import Kinds
from early_exit.policies import BASELINES
from early_exit.settings import (
    Architecture,
    BackboneTraining,
    Measurement,
    Synthetic,
    Threads,
    Training,
)
from early_exit.vocabulary import Payload
from orchestrator.errors import UsageError, nearest

PROFILES = ("demo", "photos", "paper")


def _is_known(kind: str) -> str:
    distortion(kind)
    return kind


class Spec(BaseModel):
    """One run's parameters, validated and frozen; sizes in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: str
    """One of ``orchestrator.plan.paper.TARGETS``."""
    profile: str
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32, strict=True)], ...] = Field(
        min_length=1, max_length=100
    )
    """Everything random is repeated for each; a single number is a list of one."""
    fidelity: tuple[str, ...] = Field(min_length=1)
    """The ``FIDELITIES`` to compute side by side; a single name is a list of one."""
    baselines: tuple[str, ...]
    """The ``BASELINES`` to compare with, possibly none; a single name is a list of one."""
    total_learning_rate: float = Field(gt=0, lt=1e7)
    """Peak for the backbone of baseline total; its heads train as ``expert`` says."""
    split_seed: int = Field(ge=0, lt=2**32)
    """Of the 80/10/10 split; without effect if ``split_file`` is given."""
    split_file: str | None = None
    """SHA-256 of the file that assigns each image to a split; set at submit from ``--split``."""
    device: Literal["cpu", "cuda"]
    hardware: str
    """CPU or GPU model that latencies are measured on; set at submit if empty."""
    weights: str | None = None
    """SHA-256 of the pretrained backbone; set at submit from ``--weights``."""
    image_size: int = Field(ge=32, le=1024)
    spectrum_size: int = Field(ge=32, le=1024)
    shard_size: int = Field(ge=1, le=100_000)
    views: int = Field(ge=2, le=1000)
    augmentation: Literal["paper", "none"]
    """How training views vary: brightened, mirrored and rotated (docs/paper.md §6), or not at all."""
    p_tar: float
    payload: Payload
    """How feature maps are sent, for missed deadlines and in the tables; latencies are computed for all forms."""
    levels: dict[Annotated[str, AfterValidator(_is_known)], tuple[Annotated[int, Field(strict=True)], ...]]
    """The levels that test images are evaluated at, by kind of distortion; the kinds here make up the run."""
    architecture: Architecture
    backbone: BackboneTraining
    classifier: Training
    expert: Training
    training: Threads
    measurement: Measurement
    synthetic: Synthetic

    @field_validator("seeds", "fidelity", "baselines", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | str) else value

    @field_validator("seeds", "fidelity", "baselines")
    @classmethod
    def _different(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("contains a duplicate")
        return value

    @field_validator("fidelity", "baselines")
    @classmethod
    def _known(cls, value: tuple[str, ...], field: ValidationInfo) -> tuple[str, ...]:
        names = BASELINES if field.field_name == "baselines" else FIDELITIES
        for name in value:
            if name not in names:
                raise ValueError(f"unknown '{name}'.{nearest(name, names)}")
        return value

    @model_validator(mode="after")
    def _fidelity_suits_the_training(self) -> "Spec":
        for name in self.fidelity if self.backbone.epochs == 0 else ():
            if FIDELITIES[name].drop_blocks:
                raise ValueError(
                    f"fidelity {name} drops blocks, which a frozen backbone cannot compensate for. "
                    "Train it: backbone.epochs=8"
                )
            if FIDELITIES[name].freeze_backbone:
                raise ValueError(
                    f"fidelity {name} is what a run without backbone training computes anyway. "
                    "Leave it out, or train one beside it: backbone.epochs=8"
                )
        return self

    @field_serializer("architecture")
    def _only_what_can_be_set(self, value: Architecture) -> dict[str, Any]:
        return {name: set_ for name, set_ in vars(value).items() if name != "drop_blocks"}

    @field_validator("levels")
    @classmethod
    def _of_their_kinds(cls, value: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        Kinds(value).check()
        return value

    @property
    def augmented(self) -> bool:
        """Whether training views are brightened, mirrored and rotated."""
        return self.augmentation == "paper"

    @property
    def kinds(self) -> Kinds:
        """The kinds, experts and policies that follow from ``levels`` and ``baselines``."""
        return Kinds(self.levels, self.baselines)

    @model_validator(mode="after")
    def _fidelity_suits_the_architecture(self) -> "Spec":
        name = self.architecture.backbone
        for fidelity in self.fidelity if "drop_blocks" not in recipe(name).parameters else ():
            if FIDELITIES[fidelity].drop_blocks:
                raise ValueError(f"fidelity {fidelity} drops blocks, which {name} cannot do without")
        return self

    @field_validator("p_tar")
    @classmethod
    def _one_of_the_thresholds(cls, value: float) -> float:
        if value not in THRESHOLDS:
            raise ValueError("must be one of the 101 thresholds 0.00, 0.01 … 1.00")
        return value

    @field_validator("views")
    @classmethod
    def _halves(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even: half of the views are distorted")
        return value

    @field_validator("classifier", "expert")
    @classmethod
    def _trained(cls, value: Training) -> Training:
        if value.epochs < 1:
            raise ValueError("epochs must be 1 or more")
        return value


def resolve(profile: str, settings: list[str], config: Path | None = None, plan: str = "full-paper") -> Spec:
    """The spec of ``profile`` with a TOML file's fields and then ``a.b=c`` settings laid over it.

    Raises ``UsageError`` with the field, the reason and, for an unknown name, the closest one.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile '{profile}'.{nearest(profile, PROFILES)}")
    text = resources.files("orchestrator.plan").joinpath("profiles", f"{profile}.toml").read_text("utf-8")
    # among the fields, so that a file or a setting that contradicts them is noticed below
    fields = tomllib.loads(text) | {"profile": profile, "plan": plan}
    if config is not None:
        _overlay(fields, _read_toml(config))
    for setting in settings:
        _overlay(fields, _parse_setting(setting))
    if fields["profile"] != profile:
        raise UsageError(f"field 'profile': it is {profile}. Choose another with --profile.")
    if fields["plan"] != plan:
        raise UsageError(f"field 'plan': it is {plan}. Name another after submit.")
    _refuse_dropped_blocks(fields)
    _refuse_booleans(fields)
    try:
        return Spec.model_validate(fields)
    except ValidationError as error:
        raise UsageError(_explain(error)) from None


# built once: json.dumps builds one for each call with arguments; vars, so that a dataclass stands as its fields
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True, default=vars
)


def canonical_json(value: Any) -> str:
    """The canonical JSON of a value: sorted keys, no spaces, no NaN; keys and identities are hashes of it."""
    return _ENCODER.encode(value)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        # a wrong path may name something huge
        if path.stat().st_size > 1_000_000:
            raise UsageError(f"config '{path}': larger than 1 MB. A spec is a short TOML file.")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"config '{path}': {error.strerror}. Name a readable TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"config '{path}': not TOML: {error}.") from None


def _parse_setting(setting: str) -> dict[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
        raise UsageError(f"--set '{setting}': expected FIELD=VALUE, as in --set p_tar=0.9.")
    try:
        value, *more = tomllib.loads(f"value = {text}").values()
    except (tomllib.TOMLDecodeError, RecursionError):
        # words need no quotes on the command line
        value, more = text, []
    if more:  # text of several lines
        value = text
    # from the inside out: a.b=1 becomes {"a": {"b": 1}}
    for part in reversed(name.strip().split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]  # a dict after at least one round


def _overlay(fields: dict[str, Any], over: dict[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(fields.get(name), dict):
            _overlay(fields[name], value)
        else:
            fields[name] = value


def _refuse_dropped_blocks(fields: dict[str, Any]) -> None:
    """Each variant's fidelity decides, when the run is planned, whether blocks are dropped."""
    if isinstance(fields["architecture"], dict) and "drop_blocks" in fields["architecture"]:
        raise UsageError(
            "field 'architecture.drop_blocks': a fidelity decides this. Set fidelity=dropped-blocks instead."
        )


def _refuse_booleans(fields: dict[str, Any]) -> None:
    """No field is a boolean, and pydantic would read true as 1."""
    for section, values in fields.items():
        named = values.items() if isinstance(values, dict) else [("", values)]
        for name, value in named:
            if isinstance(value, bool):
                where = f"{section}.{name}".rstrip(".")
                raise UsageError(f"field '{where}': expected a number or a text, got {str(value).lower()}.")


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    where = ".".join(path)
    if path[-1:] == ["[key]"]:  # pydantic's word for a key of a mapping
        return f"unknown field '{'.'.join(path[:-1])}'.{nearest(path[-2], known())}"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown field '{where}'.{nearest(path[-1], _fields_beside(path))}"
    reason = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
    where = f"field '{where}': " if where else ""
    return f"{where}{reason[0].lower()}{reason[1:]}{given}."


def _fields_beside(path: list[str]) -> list[str]:
    owner: Any = Spec
    for part in path[:-1]:
        owner = owner.model_fields[part].annotation
    if hasattr(owner, "model_fields"):
        return list(owner.model_fields)
    return [field.name for field in dataclasses.fields(owner)]
