"""distort: test images at one kind and level of distortion."""

import numpy as np

from early_exit.distortion import distort
from early_exit.randomness import generator
from tasks.images import check_version
from tasks.job_io import JobContext, Output
from tasks.params import Distort


def compute(params: Distort, context: JobContext) -> Output:
    """The arrays of ``prepare``, with the images distorted."""
    check_version(params.kind, params.kind_version)
    prepared = context.input("prepare").load()
    pixels = [
        distort(
            image,
            params.kind,
            params.level,
            # no seed only where no number is drawn
            generator(params.seed or 0, "distort", int(index), params.kind, params.level, 0),
        )
        for image, index in zip(prepared["pixels"], prepared["images"], strict=True)
    ]
    return Output({**prepared, "pixels": np.stack(pixels)})  # (N, H, W, 3)
