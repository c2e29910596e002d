"""From the options as typed to a spec, a dataset and a plan; all user input is validated here."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import typer
from safetensors.numpy import save

from early_exit.backbone import MOBILENET_V2
from early_exit.dataset import class_folders
from early_exit.fidelity import FIDELITIES
from early_exit.split import read_split
from early_exit.weights import check_weights, expected_shapes, imagenet_weights, parse_weights, read_file
from orchestrator.cluster.hardware import hardware
from orchestrator.context import Context
from orchestrator.errors import UsageError, nearest
from orchestrator.plan.graph import Plan, TooManyJobs
from orchestrator.plan.paper import TARGETS, DatasetShape, plan
from orchestrator.plan.spec import Spec, resolve
from orchestrator.runs.share import EQUAL, Share
from orchestrator.submit.dataset import StoredDataset, store_dataset, synthetic_folder
from tasks.code import releases

MANY_JOBS = 200_000
"""More than these are planned only if the user agrees."""


@dataclass(frozen=True)
class Request:
    """The options of ``submit``, as typed."""

    plan: str
    profile: str | None
    dataset: Path | None
    weights: str | None
    split: Path | None
    settings: list[str]
    config: Path | None
    dry_run: bool
    wait: bool
    in_process: bool
    yes: bool = False
    share: Share = EQUAL

    @property
    def chosen_profile(self) -> str:
        """The named profile; by default photos with a dataset, demo without."""
        return self.profile or ("demo" if self.dataset is None else "photos")


@dataclass(frozen=True)
class Resolved:
    """Everything a run is made of."""

    spec: Spec
    dataset: StoredDataset
    plan: Plan
    built_in: bool


def check(request: Request) -> Spec:
    """The spec, before anything is read or stored; raises ``UsageError`` for options that do not go together."""
    if request.plan not in TARGETS:
        raise UsageError(f"unknown plan '{request.plan}'.{nearest(request.plan, TARGETS)}")
    spec = resolve(request.chosen_profile, request.settings, request.config, request.plan)
    if spec.weights is not None:
        raise UsageError(
            "field 'weights': give a file with --weights FILE.safetensors or --weights imagenet."
        )
    if spec.split_file is not None:
        raise UsageError("field 'split_file': give a file with --split FILE.csv.")
    if request.dataset is None and spec.profile != "demo":
        raise UsageError(f"profile '{spec.profile}' needs photographs. Add --dataset DIR.")
    if spec.backbone.epochs == 0 and request.weights is None:
        raise UsageError(
            "a frozen backbone needs pretrained weights. Add --weights FILE.safetensors or --weights imagenet, "
            "or train one with --set backbone.epochs=N."
        )
    for name in spec.fidelity if request.weights is None else ():
        if FIDELITIES[name].freeze_backbone:
            raise UsageError(
                f"fidelity '{name}' needs pretrained weights. Add --weights FILE.safetensors or --weights imagenet."
            )
    if request.weights == "imagenet" and spec.architecture.backbone != MOBILENET_V2:
        raise UsageError(
            f"--weights imagenet: these are {MOBILENET_V2}'s. Save those of {spec.architecture.backbone} "
            "as docs/extending.md shows, and give the file."
        )
    return spec


def resolve_request(context: Context, request: Request, spec: Spec) -> Resolved:
    """Settle weights, hardware and dataset of the checked ``spec``, and plan."""
    local = context.place.home is not None
    settled = {"hardware": spec.hardware or hardware(spec.device, local=local)}
    if request.dataset is not None:
        class_folders(request.dataset.resolve())  # before minutes of a download
    weights = _read_weights(request.weights, spec) if request.weights is not None else None
    built_in = request.dataset is None
    folder = synthetic_folder(context.store, spec.synthetic) if request.dataset is None else request.dataset
    split: int | dict[str, str] = spec.split_seed
    if request.split is not None:
        split, content = read_split(request.split)
        # by content, so that a moved file is the same run and an edited one is not
        settled["split_file"] = hashlib.sha256(content).hexdigest()
    dataset = store_dataset(context.engine, folder, split, built_in=built_in)
    if weights is not None:
        # the file is copied into the store, where every worker finds it, whatever becomes of the original
        settled["weights"] = context.store.write_bytes(weights, f"weights-{os.getpid()}").sha256
    spec = spec.model_copy(update=settled)
    return Resolved(spec, dataset, _plan(spec, dataset.shape, agreed=request.yes), built_in)


def _plan(spec: Spec, shape: DatasetShape, *, agreed: bool) -> Plan:
    try:
        return plan(spec, shape, releases(), None if agreed else MANY_JOBS)
    except TooManyJobs as error:
        if not sys.stdin.isatty():
            raise UsageError(
                f"this would plan {error}. Add --yes to go on; larger shards or fewer seeds make fewer."
            ) from None
        if not typer.confirm(f"This would plan {error}. Go on?"):
            raise UsageError(
                "no run was stored. Larger shards (--set shard_size=N) or fewer seeds make fewer jobs."
            ) from None
        return plan(spec, shape, releases())


def _read_weights(source: str, spec: Spec) -> bytes:
    """The content of a safetensors file; tensors of backbones other than the paper's are checked by the first job."""
    content = save(imagenet_weights()) if source == "imagenet" else read_file(Path(source))
    tensors, architecture = parse_weights(content, source), spec.architecture
    if architecture.backbone == MOBILENET_V2:
        check_weights(tensors, expected_shapes(architecture.width), str(architecture))
    return content
