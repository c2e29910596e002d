import numpy as np
import pytest

from early_exit.latency import NETWORKS, Measured, Network, end_to_end, link_seconds, slow_start_rounds
from early_exit.policies import policy

MEASURED = Measured(
    classifier=1.0,
    edge=(2.0, 3.0, 4.0),
    cloud=5.0,
    whole=6.0,
    encode=0.5,
    decode=0.25,
    payload_bytes=10,
    image_bytes=64 * 64 * 3,
)
EIGHT_BITS_A_SECOND = Network("slow", bandwidth_mbps=8e-6, rtt_ms=0.0)  # one byte a second


@pytest.mark.parametrize(
    ("payload", "rounds"),
    [(1, 1), (14_600, 1), (14_601, 2), (43_800, 2), (43_801, 3), (64_000, 3), (331_000, 5)],
)
def test_the_window_doubles_each_round(payload, rounds):
    assert slow_start_rounds(payload) == rounds


@pytest.mark.parametrize(
    ("network", "payload", "seconds"),
    [
        # One round trip for the handshake, three for 64,000 bytes, five for 331,000.
        ("sao_paulo", 64_000, 4 * 0.010 + 0.512 / 93.6),
        ("fremont", 64_000, 4 * 0.180 + 0.512 / 73.3),
        ("paris", 331_000, 6 * 0.216 + 2.648 / 60.0),
    ],
)
def test_a_request_takes_its_round_trips_and_its_bits(network, payload, seconds):
    assert link_seconds(NETWORKS[network], payload) == pytest.approx(seconds)


def test_sending_nothing_is_refused():
    with pytest.raises(ValueError, match="payload"):
        link_seconds(NETWORKS["paris"], 0)


def test_an_image_spends_time_up_to_its_exit_only():
    spent = end_to_end(policy("classifier"), np.array([1, 2, 3, 4]), MEASURED, EIGHT_BITS_A_SECOND)
    assert spent.classifier.tolist() == [1, 1, 1, 1]
    assert spent.edge.tolist() == [2, 5, 9, 9.5]
    assert spent.link.tolist() == pytest.approx([0, 0, 0, 10])
    assert spent.cloud.tolist() == [0, 0, 0, 5.25]
    assert spent.total.tolist() == pytest.approx([3, 6, 10, 25.75])
    # Half way between 6 and 10; 0.95 · 3 = 2.85 steps up: 10 + 0.85 · 15.75.
    assert spent.percentiles == pytest.approx((8, 23.3875))


@pytest.mark.parametrize("name", ["pristine", "oracle", "generalist", "total_gaussian_blur"])
def test_a_policy_that_asks_no_classifier_does_not_wait_for_one(name):
    spent = end_to_end(policy(name), np.array([1, 4]), MEASURED, EIGHT_BITS_A_SECOND)
    assert spent.classifier.tolist() == [0, 0]
    assert spent.total.tolist() == pytest.approx([2, 24.75])


def test_without_a_cloud_there_is_neither_link_nor_encoding():
    spent = end_to_end(policy("edge-only"), np.array([3, 3]), MEASURED, EIGHT_BITS_A_SECOND)
    assert spent.link.tolist() == spent.cloud.tolist() == [0, 0]
    assert spent.total.tolist() == [1 + 2 + 3 + 4] * 2


def test_without_an_edge_every_image_takes_the_link_and_the_whole_network():
    # 64·64·3 bytes fit the first window: a round trip for the handshake, one for them.
    spent = end_to_end(policy("cloud-only"), np.array([4, 4]), MEASURED, NETWORKS["fremont"])
    link = 2 * 0.180 + 8 * 12_288 / 73.3e6
    assert spent.classifier.tolist() == spent.edge.tolist() == [0, 0]
    assert spent.link.tolist() == pytest.approx([link, link])
    assert spent.cloud.tolist() == [6, 6]
    assert spent.total.tolist() == pytest.approx([link + 6] * 2)


@pytest.mark.parametrize("name", ["classifier", "cloud-only"])
def test_no_images_take_no_time(name):
    nobody = np.zeros(0, np.int64)
    assert end_to_end(policy(name), nobody, MEASURED, EIGHT_BITS_A_SECOND).total.shape == (0,)
