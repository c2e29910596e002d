"""spectra: Fourier spectra of pictures."""

import numpy as np

from early_exit.spectrum import spectrum
from tasks.job_io import JobContext, Output
from tasks.params import Spectra
from tasks.pictures import View, changed, load_pictures


def compute(params: Spectra, context: JobContext) -> Output:
    """``spectra`` float16 (N, size, size) and ``images`` int64 (N,)."""
    pictures = load_pictures(context)
    view = View("spectra", params.kind, params.levels, 1.0, 0, augmented=False, seed=params.seed or 0)
    spectra = [spectrum(picture, params.spectrum_size) for picture in changed(pictures, view)]
    return Output({"spectra": np.stack(spectra), "images": pictures["images"]})
