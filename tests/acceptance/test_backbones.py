"""The small paper on other backbones, every stage of it."""

import pytest

OTHERS = {
    "resnet18": {"architecture.width": 1, "backbone.learning_rate": 0.001},
    "mobilenet_v3_large": {"architecture.width": 0.25, "payload": "uint8"},
}
LESS = {
    "backbone.epochs": 1,
    "backbone.batch_size": 16,
    "expert.epochs": 1,
    "expert.learning_rate": 0.001,
    "levels.gaussian_blur": [2],
    "levels.gaussian_noise": [20],
    "shard_size": 50,
}
THIRD_MAPS = {"resnet18": 256 * 4 * 4, "mobilenet_v3_large": 32 * 4 * 4}
"""Numbers in the map after stage 3 of an image of 32 × 32, the stem's stride being 1: an eighth of the side."""


@pytest.mark.parametrize("name", ["resnet18", pytest.param("mobilenet_v3_large", marks=pytest.mark.slow)])
def test_the_whole_paper_runs_on_another_backbone(home, small, name):
    options = small({"architecture.backbone": name} | LESS | OTHERS[name])
    done = home.command("submit", "full-paper", "--in-process", *options)
    assert done.returncode == 0, done.stderr
    count, least, most = home.rows("SELECT COUNT(*), MIN(confidence), MAX(confidence) FROM predictions")[0]
    assert count == 4 * 4 * 3 * 10  # experts (one of all distortions at once), exits, conditions, images
    assert 0.1 <= least <= most <= 1  # ten classes
    stages = {"train-backbone", "features", "predict", "payload-accuracy", "measure", "latency"}
    assert stages <= set(home.computed_stages(run=1))
    sent = dict(home.rows("SELECT part, payload_bytes FROM stage_times WHERE payload_bytes IS NOT NULL"))
    assert sent["encode_float32"] == 4 * THIRD_MAPS[name]
    assert sent["encode_uint8"] == 8 + THIRD_MAPS[name]
