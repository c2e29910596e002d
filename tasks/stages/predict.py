"""predict: what every exit of one expert answers for one test shard."""

from db.results.tables import Prediction
from early_exit.exits import softmax_confidence
from early_exit.network import load_heads, predict_logits
from early_exit.vocabulary import EXITS
from tasks.job_io import JobContext, Output
from tasks.params import Predict
from tasks.stages.train_expert import heads_of


def compute(params: Predict, context: JobContext) -> Output:
    """``logits`` float32 (N, 4, C), ``confidence`` float64 and ``predicted`` int64 (N, 4), ``labels``, ``images``.

    Rows in ``predictions``.
    """
    vectors = context.input("features").load()
    expert = context.input("train-expert", "adapt-expert").load()
    exits = [vectors[f"exit_{number}"] for number in EXITS]  # (N, D_k) each
    logits = predict_logits(load_heads(heads_of(expert)), exits)
    confidence, predicted = softmax_confidence(logits, expert["temperatures"])
    correct = predicted == vectors["labels"][:, None]  # (N, 4)
    rows = [
        {
            "image": image,
            "exit": number,
            "expert": params.expert,
            "kind": params.kind,
            "level": params.level,
            # Python's own numbers: database drivers take no numpy scalars
            "confidence": confidence[position, number - 1].item(),
            "predicted": predicted[position, number - 1].item(),
            "correct": correct[position, number - 1].item(),
        }
        for position, image in enumerate(vectors["images"].tolist())
        for number in EXITS
    ]
    return Output(
        {
            "logits": logits,
            "confidence": confidence,
            "predicted": predicted,
            "labels": vectors["labels"],
            "images": vectors["images"],
        },
        {Prediction: rows},
    )
