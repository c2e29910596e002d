from dataclasses import asdict

import numpy as np
import torch

from early_exit.classifier import DistortionNet
from early_exit.measure import Networks, measure
from early_exit.network import Backbone, Heads, fold_batchnorm
from early_exit.settings import Architecture, Measurement


def test_every_part_takes_time_and_the_payloads_are_the_map_after_stage_3():
    torch.manual_seed(0)
    backbone = Backbone(Architecture(width=0.1, stem_stride=1))
    heads = Heads(backbone.pooled_sizes, classes=2)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    times = measure(
        Networks(fold_batchnorm(backbone), heads, DistortionNet(32)),
        images,
        Measurement(warm_ups=1, repeats=3),
    )
    parts = asdict(times)
    payloads = parts.pop("payloads")
    assert all(value > 0 for value in parts.values())
    assert list(payloads) == ["json", "float32", "float16", "uint8"]
    assert all(payload["encode"] > 0 and payload["decode"] > 0 for payload in payloads.values())
    # 32 px through strides 1, 2, 2, 2 and 2 is 2×2; 160 channels at width 0.1 are 16: 64 numbers
    assert times.payloads["float32"].bytes == 64 * 4
    assert times.payloads["float16"].bytes == 64 * 2
    assert times.payloads["uint8"].bytes == 64 + 8
    assert times.payloads["json"].bytes > 64 * 4
