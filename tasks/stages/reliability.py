"""reliability: the bins of every exit of one expert, before and after temperature scaling."""

import numpy as np

from db.results.tables import ReliabilityBin
from early_exit.exits import softmax_confidence
from early_exit.reliability import reliability
from early_exit.vocabulary import EXITS
from tasks.job_io import JobContext, Output
from tasks.params import Reliability


def compute(params: Reliability, context: JobContext) -> Output:
    """Rows in ``reliability_bins``; every exit answers for every test image, wherever that would leave."""
    shards = [source.load() for source in context.inputs("predict")]
    logits, confidence, predicted, labels = (
        np.concatenate([shard[name] for shard in shards])
        for name in ("logits", "confidence", "predicted", "labels")
    )
    # temperatures of 1 leave logits as they are
    uncalibrated, _ = softmax_confidence(logits, np.ones(len(EXITS)))
    rows = [
        {
            "exit": number,
            "calibrated": calibrated,
            "bin": bin_,
            "expert": params.expert,
            "kind": params.kind,
            "level": params.level,
            "n": int(found.count[bin_ - 1]),
            "mean_confidence": found.confidence[bin_ - 1].item(),
            "accuracy": found.accuracy[bin_ - 1].item(),
        }
        for calibrated, scores in ((False, uncalibrated), (True, confidence))
        for number in EXITS
        # a list of one: a name for what all bins of an exit share
        for found in [reliability(scores[:, number - 1], predicted[:, number - 1] == labels)]
        # an empty bin has no mean, and so no row
        for bin_ in (np.flatnonzero(found.count) + 1).tolist()
    ]
    return Output(rows={ReliabilityBin: rows})
