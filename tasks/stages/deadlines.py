"""deadlines: batches of one policy that are wrong too often or take too long."""

from db.results.tables import MissedDeadline
from early_exit.exits import decide
from early_exit.latency import NETWORKS, end_to_end
from early_exit.outage import DEADLINES, missed_deadline, shuffled_batches
from early_exit.policies import policy
from early_exit.randomness import generator
from tasks.decisions import answers
from tasks.job_io import JobContext, Output
from tasks.params import Deadlines
from tasks.stages.latency import measured


def compute(params: Deadlines, context: JobContext) -> Output:
    """Rows in ``missed_deadlines``, over every network; the batches are those of ``outage``."""
    asked = policy(params.policy)
    answered = answers(context, asked, params.kind)
    exits, answer = decide(answered.confidence, answered.predicted, params.p_tar, asked.exits)  # (N,) each
    # image 0 and view 0: one stream for a whole condition
    rng = generator(params.seed, "batches", 0, params.kind, params.level, 0)
    batches = shuffled_batches(len(exits), rng)
    shuffles, _, size = batches.shape
    costs = measured(context, params.payload)
    rows = []
    for name, network in NETWORKS.items():
        seconds = end_to_end(asked, exits, costs, network).total
        found = missed_deadline(answer == answered.labels, seconds, params.p_tar, DEADLINES, batches)
        rows += [
            {
                "network": name,
                "t_tar_seconds": t_tar,
                "policy": params.policy,
                "kind": params.kind,
                "level": params.level,
                "p_tar": params.p_tar,
                "payload": params.payload,
                "n": len(exits),
                "batch_size": size,
                "shuffles": shuffles,
                "missed": estimate.mean,
                "ci95": estimate.ci95,
            }
            for t_tar, estimate in zip(DEADLINES, found, strict=True)
        ]
    return Output(rows={MissedDeadline: rows})
