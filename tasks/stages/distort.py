"""distort: test pictures at one kind and level of distortion."""

import numpy as np

from early_exit.distortion import distort
from early_exit.randomness import generator
from tasks.job_io import JobContext, Output
from tasks.params import Distort
from tasks.pictures import check_version


def compute(params: Distort, context: JobContext) -> Output:
    """The prepared arrays, their pictures distorted."""
    check_version(params.kind, params.kind_version)
    prepared = context.input("prepare").load()
    pictures = [
        distort(
            picture,
            params.kind,
            params.level,
            generator(params.seed or 0, "distort", int(image), params.kind, params.level, 0),
        )
        for picture, image in zip(prepared["pictures"], prepared["images"], strict=True)
    ]
    return Output({**prepared, "pictures": np.stack(pictures)})
