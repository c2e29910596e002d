"""latency: end-to-end seconds of one policy over every network, from real decisions and measured times."""

import itertools

from db.results.tables import Latency as LatencyRow
from early_exit.exits import decide
from early_exit.latency import NETWORKS, Measured, end_to_end
from early_exit.policies import policy
from early_exit.vocabulary import PAYLOADS
from tasks.decisions import answers
from tasks.job_io import JobContext, Output
from tasks.params import Latency


def compute(params: Latency, context: JobContext) -> Output:
    """Rows in ``latencies``, one per network and payload: means over the test images, p50 and p95 of the total."""
    asked = policy(params.policy)
    answered = answers(context, asked, params.kind)
    exits, _ = decide(answered.confidence, answered.predicted, params.p_tar, asked.exits)  # (N,)
    costs = {payload: measured(context, payload) for payload in PAYLOADS}
    rows = []
    for (name, network), payload in itertools.product(NETWORKS.items(), PAYLOADS):
        spent = end_to_end(asked, exits, costs[payload], network)
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


def measured(context: JobContext, payload: str) -> Measured:
    """What ``measure`` found, for feature maps that are sent as ``payload``."""
    found = {name: array.item() for name, array in context.input("measure").load().items()}
    return Measured(
        classifier=found["classifier"],
        edge=(found["stage_1"], found["stage_2"], found["stage_3"]),
        cloud=found["cloud"],
        whole=found["whole"],
        encode=found[f"encode_{payload}"],
        decode=found[f"decode_{payload}"],
        payload_bytes=found[f"{payload}_bytes"],
        image_bytes=found["image_bytes"],
    )
