"""latency: end-to-end seconds of one policy over every network, from real decisions and measured times."""

import itertools

import numpy as np

from db.results.tables import Latency as LatencyRow
from early_exit.exits import decide
from early_exit.latency import NETWORKS, Latencies, Network, StageSeconds, end_to_end, without_edge
from early_exit.policies import Policy, policy
from early_exit.vocabulary import PAYLOADS
from tasks.decisions import answers
from tasks.job_io import JobContext, Output
from tasks.params import Latency


def compute(params: Latency, context: JobContext) -> Output:
    """Rows in ``latencies``, one per network and payload: means over the test images, p50 and p95 of the total."""
    asked = policy(params.policy)
    said = answers(context, asked, params.kind)
    exits, _ = decide(said.confidence, said.predicted, params.p_tar, asked.exits)
    times = measured(context)
    rows = []
    for (name, network), payload in itertools.product(NETWORKS.items(), PAYLOADS):
        spent = spent_by(asked, exits, network, times, payload)
        p50, p95 = spent.percentiles
        rows.append(
            {
                "payload": payload,
                "policy": params.policy,
                "network": name,
                "kind": params.kind,
                "level": params.level,
                "p_tar": params.p_tar,
                "n": len(exits),
                "offloaded": int((exits == 4).sum()),
                "mean_seconds": spent.total.mean().item(),
                "p50_seconds": p50,
                "p95_seconds": p95,
                "classifier_seconds": spent.classifier.mean().item(),
                "edge_seconds": spent.edge.mean().item(),
                "link_seconds": spent.link.mean().item(),
                "cloud_seconds": spent.cloud.mean().item(),
            }
        )
    return Output(rows={LatencyRow: rows})


def measured(context: JobContext) -> dict[str, float]:
    """What ``measure`` found: seconds of each part, bytes of each payload."""
    return {name: array.item() for name, array in context.input("measure").load().items()}


def spent_by(
    policy: Policy, exits: np.ndarray, network: Network, times: dict[str, float], payload: str
) -> Latencies:
    """Seconds of the images that ``policy`` lets leave at ``exits``, from measured ``times``.

    Without an edge there is no feature map to send: whatever the ``payload``, the image's own bytes are.
    """
    if not policy.has_edge:
        return without_edge(len(exits), network, int(times["image_bytes"]), times["whole"])
    seconds = StageSeconds(
        classifier=times["classifier"],
        edge=(times["stage_1"], times["stage_2"], times["stage_3"]),
        cloud=times["cloud"],
        encode=times[f"encode_{payload}"],
        decode=times[f"decode_{payload}"],
    )
    return end_to_end(exits, seconds, network, int(times[f"{payload}_bytes"]), policy.asks_classifier)
