"""classify: which distortion the classifier predicts for test images."""

import numpy as np

from db.results.tables import Classification
from early_exit.classifier import classify, load_classifier
from tasks.job_io import JobContext, Output
from tasks.params import Classify


def compute(params: Classify, context: JobContext) -> Output:
    """``predicted`` (index into ``params.kinds``) and ``images`` int64 (N,); rows in ``classifications``."""
    spectra = context.input("spectra").load()
    net = load_classifier(
        context.input("train-classifier").load(),
        params.spectrum_size,
        released_spectra=spectra["spectra"].dtype == np.uint8,  # ours are float16
    )
    predicted, confidence = classify(net, spectra["spectra"])
    rows = [
        {
            "image": image,
            "kind": params.kind,
            "level": params.level,
            "predicted": params.kinds[number],
            "confidence": probability,
        }
        for image, number, probability in zip(
            spectra["images"].tolist(), predicted.tolist(), confidence.tolist(), strict=True
        )
    ]
    return Output({"predicted": predicted, "images": spectra["images"]}, {Classification: rows})
