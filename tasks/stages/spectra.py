"""spectra: Fourier spectra of images."""

from collections.abc import Callable

import numpy as np

from early_exit.images import through_jpeg
from early_exit.spectrum import released_spectrum, released_training_spectrum, spectrum
from tasks.images import View, changed, load_images
from tasks.job_io import JobContext, Output
from tasks.params import Spectra

FORMS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "ours": spectrum,
    "released-training": released_training_spectrum,
    # an image reaches the released edge as JPEG (docs/paper.md §4)
    "released-edge": lambda image, size: released_spectrum(through_jpeg(image), size),
}


def compute(params: Spectra, context: JobContext) -> Output:
    """``spectra`` float16 (N, size, size), released ones uint8, and ``images`` int64 (N,)."""
    shard = load_images(context)
    view = View(
        "spectra",
        params.kind,
        params.kind_version,
        params.levels,
        share=1.0,  # all of them: a spectrum's kind is its label
        number=0,
        augmented=False,
        seed=params.seed or 0,
    )
    transform = FORMS[params.form]
    spectra = [transform(image, params.spectrum_size) for image in changed(shard, view)]
    return Output({"spectra": np.stack(spectra), "images": shard["images"]})
