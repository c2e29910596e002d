"""sweep: exits and correct answers of one policy at all 101 thresholds, as integers."""

from db.results.tables import SweepPoint
from early_exit.exits import THRESHOLDS, sweep
from early_exit.policies import policy
from early_exit.vocabulary import EXITS
from tasks.decisions import answers
from tasks.job_io import JobContext, Output
from tasks.params import Sweep


def compute(params: Sweep, context: JobContext) -> Output:
    """Rows in ``sweep_points``."""
    asked = policy(params.policy)
    answered = answers(context, asked, params.kind)
    counts = sweep(answered.confidence, answered.predicted, answered.labels, exits=asked.exits)
    rows = [
        {
            "p_tar": p_tar,
            "policy": params.policy,
            "kind": params.kind,
            "level": params.level,
            "n": len(answered.labels),
            **{f"n{k}": counts.n[row, k - 1].item() for k in EXITS},
            **{f"c{k}": counts.c[row, k - 1].item() for k in EXITS},
            **{f"r{k}": counts.r[row, k - 1].item() for k in EXITS[:3]},  # exit 4 takes every image
        }
        for row, p_tar in enumerate(THRESHOLDS)
    ]
    return Output(rows={SweepPoint: rows})
