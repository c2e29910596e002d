"""classify: which distortion the classifier sees in test pictures."""

import numpy as np

from db.results.tables import Classification
from early_exit.classifier import classify, load_classifier
from tasks.job_io import JobContext, Output
from tasks.params import Classify


def compute(params: Classify, context: JobContext) -> Output:
    """``seen`` (index into ``params.kinds``) and ``images`` int64 (N,); rows in ``classifications``."""
    spectra = context.input("spectra").load()
    net = load_classifier(
        context.input("train-classifier").load(),
        params.spectrum_size,
        released_spectra=spectra["spectra"].dtype == np.uint8,
    )
    seen, confidence = classify(net, spectra["spectra"])
    rows = [
        {
            "image": image,
            "kind": params.kind,
            "level": params.level,
            "seen": params.kinds[number],
            "confidence": probability,
        }
        for image, number, probability in zip(
            spectra["images"].tolist(), seen.tolist(), confidence.tolist(), strict=True
        )
    ]
    return Output({"seen": seen, "images": spectra["images"]}, {Classification: rows})
