"""payload-accuracy: the final exit's answers from feature maps that were sent in each form."""

from db.results.tables import PayloadAnswers
from early_exit.network import load_heads
from early_exit.payload import final_answers
from tasks.backbone import planned
from tasks.images import load_images
from tasks.job_io import JobContext, Output
from tasks.params import PayloadAccuracy
from tasks.stages.features import folded
from tasks.stages.train_expert import heads_of


def compute(params: PayloadAccuracy, context: JobContext) -> Output:
    """Rows in ``payload_answers``, of one test shard."""
    shard = load_images(context)
    backbone = context.input("train-backbone", "adapt-expert")
    expert = context.input("train-expert", "adapt-expert")
    architecture = planned(params.architecture, backbone.params["backbone_version"])
    heads = load_heads(heads_of(expert.load()))
    found = final_answers(folded(backbone, architecture), heads, shard["pixels"], params.device)
    rows = [
        {
            "payload": payload,
            "expert": params.expert,
            "kind": params.kind,
            "level": params.level,
            "n": len(answers),
            "agreeing": int((answers == found["float32"]).sum()),  # float32 arrives to the bit
            "correct": int((answers == shard["labels"]).sum()),
        }
        for payload, answers in found.items()
    ]
    return Output(rows={PayloadAnswers: rows})
