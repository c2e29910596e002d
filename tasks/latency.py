"""latency: end-to-end seconds of one policy over one network profile, from real decisions and measured times."""

import numpy as np

from db.results import Latency as LatencyRow
from early_exit.exits import decide
from early_exit.latency import PROFILES, StageSeconds, end_to_end
from tasks.decisions import answers
from tasks.job_io import JobContext, Output
from tasks.params import Latency


def compute(params: Latency, context: JobContext) -> Output:
    """One row in ``latencies``: means over the test images, and the median and 95th percentile of the total."""
    said = answers(context, params.policy, params.kind)
    exits, _ = decide(said.confidence, said.predicted, params.p_tar)
    measured = {name: array.item() for name, array in context.input("measure").load().items()}
    seconds = StageSeconds(
        classifier=measured["classifier"],
        edge=(measured["stage_1"], measured["stage_2"], measured["stage_3"]),
        cloud=measured["cloud"],
        encode=measured[f"encode_{params.payload}"],
        decode=measured[f"decode_{params.payload}"],
    )
    spent = end_to_end(
        exits,
        seconds,
        PROFILES[params.profile],
        int(measured[f"{params.payload}_bytes"]),
        uses_classifier=params.policy == "classifier",
    )
    p50, p95 = np.percentile(spent.total, [50, 95]).tolist()
    row = {
        "policy": params.policy,
        "profile": params.profile,
        "kind": params.kind,
        "level": params.level,
        "p_tar": params.p_tar,
        "payload": params.payload,
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
    return Output(rows={LatencyRow: [row]})
