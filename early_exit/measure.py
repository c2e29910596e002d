"""How long each part of one inference takes, at batch 1, and what an offloaded image sends (docs/paper.md §11)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from early_exit.classifier import DistortionNet
from early_exit.determinism import set_deterministic
from early_exit.features import normalise
from early_exit.network import Backbone, Heads
from early_exit.payload import decode, encode
from early_exit.settings import Measurement
from early_exit.spectrum import released_spectrum, spectrum
from early_exit.vocabulary import EXITS, PAYLOADS

Result = TypeVar("Result")


@dataclass(frozen=True)
class PayloadTimes:
    """Median seconds of making and of reading one payload of the map after stage 3, and its median bytes."""

    encode: float
    decode: float
    bytes: int


@dataclass(frozen=True)
class StageTimes:
    """Median seconds of each part."""

    classifier: float  # spectrum and forward pass
    stage_1: float  # normalisation, the stage, its branch's head and softmax
    stage_2: float
    stage_3: float
    cloud: float  # stage 4, final head and softmax
    whole: float  # normalisation, all stages, final head and softmax; no branch
    payloads: dict[str, PayloadTimes]
    """One for each of ``PAYLOADS``."""


@dataclass(frozen=True)
class Networks:
    """What an inference passes through; ``backbone`` is one from ``fold_batchnorm``, as ``features`` runs it."""

    backbone: Backbone
    heads: Heads
    classifier: DistortionNet


def measure(
    networks: Networks, images: np.ndarray, measurement: Measurement, device: str = "cpu"
) -> StageTimes:
    """Time inferences of single uint8 images, of (N, H, W, 3) in turn, on ``device``, with one thread.

    The classifier runs on the CPU, as it does for the results.
    """
    # the paper's edge has one core (docs/paper.md §11)
    set_deterministic(threads=1)
    backbone, heads = networks.backbone.to(device).eval(), networks.heads.to(device).eval()
    classifier = networks.classifier.eval()
    samples: dict[str, list[float]] = {}
    sent: list[dict[str, int]] = []
    with torch.inference_mode():
        for repeat in range(measurement.warm_ups + measurement.repeats):
            image, watch = images[repeat % len(images)], _Watch(device)  # (H, W, 3)
            watch.time("classifier", partial(_classify, classifier, image))
            sizes = _infer(watch, backbone, heads, image)
            if repeat >= measurement.warm_ups:  # the first passes allocate, and on a GPU choose their kernels
                sent.append(sizes)
                for name, seconds in watch.seconds.items():
                    samples.setdefault(name, []).append(seconds)
    # not means: a single interruption of the machine would move those
    medians = {name: median(values) for name, values in samples.items()}
    payloads = {
        name: PayloadTimes(
            encode=medians.pop(f"encode {name}"),
            decode=medians.pop(f"decode {name}"),
            bytes=int(median(sizes[name] for sizes in sent)),  # only json's differ by image
        )
        for name in PAYLOADS
    }
    return StageTimes(**medians, payloads=payloads)


class _Watch:
    """Runs steps and keeps the seconds of each, waiting for the GPU where there is one."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def time(self, name: str, step: Callable[[], Result]) -> Result:
        self._synchronise()  # a GPU keeps working after a call returns: earlier work must not count as this step's
        start = time.perf_counter()
        result = step()
        self._synchronise()
        self.seconds[name] = time.perf_counter() - start
        return result

    def _synchronise(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def _classify(classifier: DistortionNet, image: np.ndarray) -> None:
    transform = released_spectrum if classifier.released_spectra else spectrum
    logits = classifier(torch.tensor(transform(image, classifier.size)[None]))  # (1, 1, kinds)
    # the answer is dropped: only the time it takes is wanted, as in the functions below
    logits.double().softmax(dim=2).max(dim=2)


def _infer(watch: _Watch, backbone: Backbone, heads: Heads, image: np.ndarray) -> dict[str, int]:
    """One timed inference through all exits; the bytes that each payload takes."""
    device = watch.device

    # one image, as they reach the edge one by one
    def answer(number: int, x: Tensor) -> Tensor:
        x = backbone.stage(number, x)  # (1, C, h, w)
        logits = heads.exits[number - 1](backbone.pool(number, x))  # (1, classes)
        logits.double().softmax(dim=1).max(dim=1)
        return x

    first = watch.time("stage_1", lambda: answer(1, normalise(image[None]).to(device)))
    second = watch.time("stage_2", lambda: answer(2, first))
    third = watch.time("stage_3", lambda: answer(3, second))
    sizes = {}
    for payload in PAYLOADS:
        data = watch.time(f"encode {payload}", partial(_encode, payload, third))
        watch.time(f"decode {payload}", partial(_decode, payload, data, third))
        sizes[payload] = len(data)
    sent = third.contiguous()  # no longer channels last, like a map that came over the link
    watch.time("cloud", lambda: answer(4, sent))
    watch.time("whole", partial(_answer_whole, backbone, heads, image, device))
    return sizes


def _answer_whole(backbone: Backbone, heads: Heads, image: np.ndarray, device: str) -> None:
    x = normalise(image[None]).to(device)  # (1, 3, H, W)
    for number in EXITS:
        x = backbone.stage(number, x)  # (1, C, h, w)
    heads.exits[3](backbone.pool(4, x)).double().softmax(dim=1).max(dim=1)


def _encode(payload: str, feature_map: Tensor) -> bytes:
    return encode(payload, feature_map.cpu().numpy())  # a GPU's map is copied first, as it has to be sent


def _decode(payload: str, data: bytes, like: Tensor) -> Tensor:
    return torch.tensor(decode(payload, data, tuple(like.shape))).to(like.device)
