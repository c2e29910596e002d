"""Export a run's distorted test images, or their spectra, as image files: ``KIND/LEVEL/N.jpg`` (docs/paper.md §3)."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from rich.progress import track
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.artifacts import BadArtifact, Tensors
from db.engine import reading, write
from db.models import Image, Run
from db.recovery import set_aside
from early_exit.spectrum import in_grey_levels
from early_exit.splits import TEST
from orchestrator.context import Context
from orchestrator.errors import OrchestratorError, UsageError, nearest
from orchestrator.files.folder import new_folder
from orchestrator.files.shards import ARRAYS, Selection, Shard, select_shards

FORMATS: dict[str, dict[str, Any]] = {"jpg": {"format": "JPEG", "quality": 75}, "png": {"format": "PNG"}}
"""How Pillow saves a file: 75 is its default for JPEG, which the released scripts use (docs/paper.md §3)."""

TestImage = tuple[int, str, int]
"""Position in the dataset, path in its folder, label."""


@dataclass(frozen=True)
class Export:
    """What to export of a run, in which format, and where to."""

    run_id: int
    selection: Selection
    form: str
    folder: Path


def write_images(context: Context, asked: Export) -> None:
    """Fill a new folder with ``KIND/LEVEL/N.jpg`` or ``.png`` and an ``index.csv``, atomically.

    N counts the test images from 1, in the dataset's order; pristine ones are level 0. ``index.csv`` has the
    columns n, path (in the dataset) and label. Raises ``UsageError`` for what does not exist,
    ``OrchestratorError`` for a stored file that was altered.
    """
    if asked.form not in FORMATS:
        raise UsageError(f"unknown format '{asked.form}'.{nearest(asked.form, FORMATS)}")
    with reading(context.engine) as session:
        shards = select_shards(session, asked.run_id, asked.selection)
        images = _test_images(session, asked.run_id)
    numbers = {index: number for number, (index, _, _) in enumerate(images, start=1)}
    folder, written, console = asked.folder.resolve(), 0, context.console
    with new_folder(folder) as content:
        for shard in track(shards, "Writing images", console=console, disable=not console.is_terminal):
            tensors = _load(context, shard, asked.selection.what)
            target = content / shard.kind / str(shard.level)
            target.mkdir(parents=True, exist_ok=True)
            for image, pixels in zip(tensors["images"], _pixels(tensors, asked.selection.what), strict=True):
                path = target / f"{numbers[int(image)]}.{asked.form}"
                PilImage.fromarray(pixels).save(path, **FORMATS[asked.form])
                written += 1
        _write_index(content / "index.csv", images)
    what = f"{asked.selection.what} of run {asked.run_id}"
    console.print(
        f"{what}: {written:,} files of {len(images):,} images in '{folder}'.", soft_wrap=True, markup=False
    )


def _pixels(tensors: Tensors, what: str) -> NDArray[np.uint8]:
    """uint8 (N, H, W, 3) for images, (N, H, W) for spectra."""
    array = tensors[ARRAYS[what]]
    return in_grey_levels(array) if what == "spectra" else array


def _load(context: Context, shard: Shard, what: str) -> Tensors:
    """A shard's arrays; a bad file is set aside, so that a submit recomputes it."""
    artifact = shard.artifact
    assert artifact is not None  # select_shards guarantees it
    assert artifact.uri is not None
    assert artifact.sha256 is not None
    try:
        return context.store.read(artifact.uri, artifact.sha256)
    except BadArtifact as error:
        # the row first: the key is then made again, whatever becomes of the file
        write(context.engine, lambda session: set_aside(session, artifact.id))
        context.store.set_aside(artifact.uri)
        raise OrchestratorError(
            f"{error}. It was set aside. Recompute it with the same options: orchestrator submit {what}"
        ) from None


def _test_images(session: Session, run_id: int) -> list[TestImage]:
    dataset = select(Run.dataset_id).where(Run.id == run_id).scalar_subquery()
    rows = session.execute(
        select(Image.index, Image.path, Image.label)
        .where(Image.dataset_id == dataset, Image.split == TEST)
        .order_by(Image.index)
    )
    return [(index, path, label) for index, path, label in rows]


def _write_index(path: Path, images: list[TestImage]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["n", "path", "label"])
        rows.writerows([number, path, label] for number, (_, path, label) in enumerate(images, start=1))
