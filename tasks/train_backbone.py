"""train-backbone: the shared backbone, trained on pristine pictures or taken as given."""

from db.artifacts import BadArtifact, Tensors, uri_of
from early_exit.network import Architecture
from early_exit.training import Settings, train_backbone
from early_exit.weights import parse_weights
from tasks.epochs import epoch_rows
from tasks.job_io import JobContext, Output, Refused
from tasks.params import TrainBackbone
from tasks.pictures import examples


def compute(params: TrainBackbone, context: JobContext) -> Output:
    """The backbone's ``features.*``; rows in ``training_epochs`` unless the weights stay frozen."""
    weights = None
    if params.weights is not None:
        weights = _given(context, params.weights)
    if params.training.epochs == 0:
        return Output(weights)
    settings = dict(vars(params.training))
    head_learning_rate = settings.pop("head_learning_rate") or None
    optimizer = settings.pop("optimizer")
    fit = train_backbone(
        examples(context, "train"),
        examples(context, "validation"),
        classes=params.classes,
        architecture=Architecture(**vars(params.architecture), drop_blocks=params.drop_blocks),
        weights=weights,
        settings=Settings(**settings),
        seed=params.seed or 0,
        device=params.device,
        threads=params.threads,
        checkpoint=context.checkpoint,
        augmented=params.augmented,
        head_learning_rate=head_learning_rate,
        optimizer=optimizer,
    )
    return Output(fit.weights, epoch_rows("backbone", fit.epochs))


def _given(context: JobContext, sha256: str) -> Tensors:
    try:
        return parse_weights(context.store.read_bytes(uri_of(sha256), sha256), sha256)
    except BadArtifact as error:
        raise Refused(f"the given weights: {error}. Submit them again.") from None
