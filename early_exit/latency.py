"""From measured times and a link to end-to-end seconds per image (docs/paper.md §11)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from early_exit.policies import Policy

INITIAL_WINDOW_BYTES = 14_600
"""What TCP sends before the first acknowledgement: ten segments of 1,460 bytes (RFC 6928)."""


@dataclass(frozen=True)
class Network:
    """The network between edge and cloud: bandwidth in megabits per second, round trip in milliseconds."""

    name: str
    bandwidth_mbps: float
    rtt_ms: float


NETWORKS = {
    network.name: network
    for network in (
        # bandwidth by iPerf3, round trip by ping
        Network("sao_paulo", 93.6, 10.0),
        Network("fremont", 73.3, 180.0),
        Network("paris", 60.0, 216.0),
    )
}
"""The paper's three cloud sites as seen from Rio de Janeiro (docs/paper.md §11), by name."""


@dataclass(frozen=True)
class Measured:
    """What one image costs at batch 1: seconds in each part of the system, and bytes on the link."""

    #: spectrum and distortion classifier, on the edge
    classifier: float
    #: backbone stages 1, 2 and 3, each with its branch; not cumulative
    edge: tuple[float, float, float]
    #: backbone stage 4 and the final layer
    cloud: float
    #: all stages and the final layer in one go, without branches
    whole: float
    #: making the payload of the feature map, on the edge
    encode: float
    #: reading it, in the cloud
    decode: float
    payload_bytes: int
    #: the image's own: three per pixel, not compressed, as the edge has them
    image_bytes: int


@dataclass(frozen=True)
class Latencies:
    """Seconds per image, float64 (N,), by where they are spent; ``total`` is the sum of the other four."""

    classifier: NDArray[np.float64]
    #: the stages up to the image's exit, and encoding if it is offloaded
    edge: NDArray[np.float64]
    link: NDArray[np.float64]
    #: decoding, stage 4 and the final layer; 0 for an image that left on the edge
    cloud: NDArray[np.float64]
    total: NDArray[np.float64]

    @property
    def percentiles(self) -> tuple[float, float]:
        """Median and 95th percentile of the total, linearly interpolated."""
        p50, p95 = np.percentile(self.total, [50, 95]).tolist()
        return p50, p95


def slow_start_rounds(payload_bytes: int) -> int:
    """Round trips until the payload has arrived: the congestion window starts at 14,600 bytes and doubles in each."""
    rounds = 1
    # windows of 1, 2, 4 … times the first add up to 2^rounds − 1 of it
    while INITIAL_WINDOW_BYTES * (2**rounds - 1) < payload_bytes:
        rounds += 1
    return rounds


def link_seconds(network: Network, payload_bytes: int) -> float:
    """Seconds for one request to the cloud over a new TCP connection, as in the released code.

    One round trip for the handshake, r for the payload under slow start (the last also returns the
    reply), and the payload's bits at full bandwidth: rtt·(1 + r) + 8·payload/bandwidth. No losses, no window
    limit. Raises ValueError if there is nothing to send.
    """
    if payload_bytes <= 0:
        raise ValueError(f"a payload of {payload_bytes} bytes: an offloaded image sends at least one byte")
    waiting = network.rtt_ms / 1e3 * (1 + slow_start_rounds(payload_bytes))  # 1 for the handshake
    return waiting + 8 * payload_bytes / (network.bandwidth_mbps * 1e6)


def end_to_end(policy: Policy, exits: NDArray[np.int64], measured: Measured, network: Network) -> Latencies:
    """Seconds of each image that ``policy`` lets leave at ``exits`` (N,), 1…4; exit 4 is offloaded after stage 3.

    Without an edge there is no feature map: the image itself is sent, and the whole network runs in the cloud.
    Not counted, as in the paper: the way from the end device to the edge, decoding and resizing the image.
    """
    nothing = np.zeros(exits.shape)  # (N,); what is the same for all images is added to it
    if not policy.has_edge:
        on_link = nothing + link_seconds(network, measured.image_bytes)
        cloud = nothing + measured.whole
        return Latencies(nothing, nothing, on_link, cloud, on_link + cloud)
    offloaded = exits == 4
    up_to_stage = np.cumsum(measured.edge)  # (3,)
    classifier = nothing + (measured.classifier if policy.asks_classifier else 0.0)
    # an offloaded image has been through all three stages as well
    edge = up_to_stage[np.minimum(exits, 3) - 1] + np.where(offloaded, measured.encode, 0.0)
    on_link = np.where(offloaded, link_seconds(network, measured.payload_bytes), 0.0)
    cloud = np.where(offloaded, measured.decode + measured.cloud, 0.0)
    return Latencies(classifier, edge, on_link, cloud, classifier + edge + on_link + cloud)
