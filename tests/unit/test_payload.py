import json

import numpy as np
import pytest
import torch

from early_exit.features import extract
from early_exit.network import Backbone, Heads, fold_batchnorm, predict_logits
from early_exit.payload import decode, encode, final_answers
from early_exit.settings import Architecture
from early_exit.vocabulary import PAYLOADS

SHAPE = (1, 16, 3, 2)


def feature_map(number=0):
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


def arrived(payload, sent):
    return decode(payload, encode(payload, sent), sent.shape)


@pytest.mark.parametrize("payload", ["json", "float32"])
def test_json_and_float32_keep_every_bit(payload):
    tiny, largest = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    sent = np.concatenate([feature_map().ravel(), [0.1, 1 / 3, -0.0, tiny, largest, -largest]]).astype(
        np.float32
    )
    assert arrived(payload, sent).tobytes() == sent.tobytes()


def test_json_is_nested_lists():
    assert json.loads(encode("json", np.array([[0.5, -2.0]], np.float32))) == [[0.5, -2.0]]


def test_float16_rounds_to_eleven_bits():
    sent = np.array([1.0, 1 + 2**-10, 1 + 2**-12, 2049.0], np.float32)
    assert arrived("float16", sent).tolist() == [1.0, 1 + 2**-10, 1.0, 2048.0]


def test_what_float16_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="65504"):
        encode("float16", np.array([1.0, -65536.0], np.float32))


def test_uint8_has_256_levels_between_the_smallest_and_the_largest_value():
    sent = np.array([-1.0, 1.55, 0.004, 0.006], np.float32)  # scale 2.55 / 255 = 0.01
    data = encode("uint8", sent)
    assert len(data) == 8 + 4
    assert np.frombuffer(data[:8], "<f4").tolist() == pytest.approx([0.01, -1.0])
    assert list(data[8:]) == [0, 255, 100, 101]
    assert arrived("uint8", sent).tolist() == pytest.approx([-1.0, 1.55, 0.0, 0.01], abs=1e-6)


def test_uint8_is_at_most_half_a_level_off():
    sent = feature_map(1)
    level = (sent.max() - sent.min()) / 255
    assert np.abs(arrived("uint8", sent) - sent).max() <= level / 2 * 1.001


def test_a_map_of_one_value_arrives_as_it_is():
    sent = np.full(SHAPE, -0.3, np.float32)
    assert (arrived("uint8", sent) == sent).all()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_map_arrives_in_its_shape(payload):
    got = arrived(payload, feature_map())
    assert (got.shape, got.dtype) == (SHAPE, np.float32)


def test_an_unknown_payload_is_refused():
    with pytest.raises(ValueError, match="unknown payload 'xml': it is one of json"):
        encode("xml", feature_map())
    with pytest.raises(ValueError, match="unknown payload"):
        decode("xml", b"", SHAPE)


@pytest.fixture
def network():
    torch.manual_seed(0)
    backbone = fold_batchnorm(Backbone(Architecture(width=0.1, stem_stride=1)))
    return backbone, Heads(backbone.pooled_sizes, classes=50).eval()


@pytest.mark.parametrize("count", [0, 1, 19])
def test_answers_from_lossless_payloads_are_those_of_the_final_exit(network, count):
    backbone, heads = network
    images = np.random.default_rng(2).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    found = final_answers(backbone, heads, images)
    logits = predict_logits(heads, extract(backbone, images))
    assert found.keys() == set(PAYLOADS)
    assert found["json"].tolist() == found["float32"].tolist() == logits[:, 3].argmax(axis=1).tolist()


def test_a_coarse_payload_changes_answers_that_hang_on_little(network):
    """The head of the untrained network sees no more than how a vector differs from the mean one."""
    backbone, heads = network
    images = np.random.default_rng(3).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    mean = torch.tensor(extract(backbone, images)[3].mean(axis=0))
    final = heads.exits[3]
    with torch.no_grad():
        final.bias.copy_(-final.weight @ mean)
    found = final_answers(backbone, heads, images)
    assert len(set(found["float32"].tolist())) > 5
    agreeing = {payload: (found[payload] == found["float32"]).mean() for payload in PAYLOADS}
    assert agreeing["json"] == 1.0
    assert 0.1 < agreeing["uint8"] < agreeing["float16"]
