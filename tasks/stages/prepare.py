"""prepare: image files to square uint8 images."""

from pathlib import Path

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import engine
from db.models import IMAGE_FILE_COLUMNS, Dataset, Image, Run
from early_exit.dataset import ImageFile, InputChanged, read
from early_exit.images import decode, fit, resize_to, squash
from tasks.job_io import JobContext, Output, Refused
from tasks.params import Prepare

RESIZES = {"margin": fit, "plain": resize_to, "squash": squash}


def compute(params: Prepare, context: JobContext) -> Output:
    """``pixels`` uint8 (N, size, size, 3), ``labels`` and ``images`` (dataset positions) int64 (N,)."""
    root, images = _images(params, context)
    resize = RESIZES[params.resize]
    try:
        pixels = [resize(decode(read(root, image)), params.image_size) for image in images]
    except (InputChanged, FileNotFoundError) as error:
        # a retry would read the same bytes
        raise Refused(f"input changed since it was submitted: {error}") from None
    return Output(
        {
            "pixels": np.stack(pixels),
            "labels": np.array([image.label for image in images], np.int64),
            "images": np.array([image.index for image in images], np.int64),
        }
    )


def _images(params: Prepare, context: JobContext) -> tuple[Path, list[ImageFile]]:
    def listed(session: Session) -> tuple[str, list[ImageFile]]:
        dataset = session.scalars(
            select(Dataset).join(Run, Run.dataset_id == Dataset.id).where(Run.id == context.claim.run_id)
        ).one()
        rows = session.execute(
            select(*IMAGE_FILE_COLUMNS)
            .where(Image.dataset_id == dataset.id, Image.split == params.split)
            .order_by(Image.index)  # the order that shards are cut in
            .slice(params.start, params.stop)
        ).all()
        return dataset.uri, [ImageFile(*row) for row in rows]

    root, images = engine.read(context.engine, listed)
    return Path(root), images
