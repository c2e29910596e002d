"""measure: median times of the parts of an inference, on the code path that made the results."""

import numpy as np
import torch

from db.results.tables import StageTime
from early_exit.classifier import load_classifier
from early_exit.measure import Networks, measure
from early_exit.network import fold_batchnorm, load_heads, load_weights
from tasks.backbone import planned
from tasks.hardware import cpu_name
from tasks.images import load_images
from tasks.job_io import JobContext, Output
from tasks.params import Measure
from tasks.stages.train_expert import heads_of

PARTS = ("classifier", "stage_1", "stage_2", "stage_3", "cloud", "whole")


def compute(params: Measure, context: JobContext) -> Output:
    """One-element arrays: seconds by part, and bytes of each payload and of the image; rows in ``stage_times``."""
    images, backbone = load_images(context)["pixels"], context.input("train-backbone")  # (N, H, W, 3)
    architecture = planned(params.architecture, backbone.params["backbone_version"])
    networks = Networks(
        fold_batchnorm(load_weights(backbone.load(), architecture)),
        load_heads(heads_of(context.input("train-expert").load())),
        load_classifier(
            context.input("train-classifier").load(),
            params.spectrum_size,
            released_spectra=params.released_spectra,
        ),
    )
    times = measure(networks, images, params.measurement, params.device)
    seconds = {name: getattr(times, name) for name in PARTS}
    # without an edge the image itself is sent, not compressed
    sizes = {"whole": images[0].nbytes}
    for name, payload in times.payloads.items():
        seconds |= {f"encode_{name}": payload.encode, f"decode_{name}": payload.decode}
        sizes[f"encode_{name}"] = payload.bytes
    hardware = _hardware(params.device)
    rows = [
        {
            "part": part,
            "device": params.device,
            "hardware": hardware,
            "seconds": value,
            "payload_bytes": sizes.get(part),
        }
        for part, value in seconds.items()
    ]
    arrays = {name: np.array([value]) for name, value in seconds.items()}
    arrays |= {f"{name}_bytes": np.array([payload.bytes]) for name, payload in times.payloads.items()}
    arrays["image_bytes"] = np.array([images[0].nbytes])
    return Output(arrays, {StageTime: rows})


def _hardware(device: str) -> str:
    """What was measured: on a cluster perhaps another machine than the one that planned it."""
    return cpu_name() if device == "cpu" else torch.cuda.get_device_name()
