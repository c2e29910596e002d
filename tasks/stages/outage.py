"""outage: batches of one policy that are right less often than p_tar, on the edge and overall."""

from db.results.tables import Outage as OutageRow
from early_exit.exits import decide
from early_exit.outage import THRESHOLDS, outage, shuffled_batches
from early_exit.policies import policy
from early_exit.randomness import generator
from early_exit.vocabulary import EXITS
from tasks.decisions import answers
from tasks.job_io import JobContext, Output
from tasks.params import Outage


def compute(params: Outage, context: JobContext) -> Output:
    """Rows in ``outages``; all policies and thresholds are judged on the same batches of a condition."""
    asked = policy(params.policy)
    answered = answers(context, asked, params.kind)
    # image 0 and view 0: one stream for a whole condition
    rng = generator(params.seed, "batches", 0, params.kind, params.level, 0)
    batches = shuffled_batches(len(answered.labels), rng)
    shuffles, _, size = batches.shape
    rows = []
    for p_tar in THRESHOLDS:
        exits, answer = decide(answered.confidence, answered.predicted, p_tar, asked.exits)  # (N,) each
        found = outage(answer == answered.labels, exits < EXITS[-1], p_tar, batches)
        rows.append(
            {
                "p_tar": p_tar,
                "policy": params.policy,
                "kind": params.kind,
                "level": params.level,
                "n": len(answered.labels),
                "batch_size": size,
                "shuffles": shuffles,
                "edge_outage": found.edge.mean,
                "edge_ci95": found.edge.ci95,
                "overall_outage": found.overall.mean,
                "overall_ci95": found.overall.ci95,
                "batches_without_edge": found.without_edge,
            }
        )
    return Output(rows={OutageRow: rows})
