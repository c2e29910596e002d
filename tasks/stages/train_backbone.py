"""train-backbone: the shared backbone, trained on pristine images or taken as given."""

from db.artifacts import BadArtifact, Tensors, uri_of
from early_exit.backbone import BackboneError
from early_exit.batches import TrainingData
from early_exit.network import layout, load_weights
from early_exit.settings import Architecture
from early_exit.splits import TRAIN, VALIDATION
from early_exit.training import Setup, Start, train_backbone
from early_exit.weights import WeightsError, parse_weights
from tasks.backbone import planned
from tasks.epochs import epoch_rows
from tasks.images import examples
from tasks.job_io import JobContext, Output, Refused
from tasks.params import TrainBackbone


def compute(params: TrainBackbone, context: JobContext) -> Output:
    """The backbone's ``features.*``; rows in ``training_epochs`` unless the weights stay frozen."""
    architecture = planned(params.architecture, params.backbone_version)
    try:
        layout(architecture)  # asked first: refused before any image is loaded
    except BackboneError as error:
        raise Refused(str(error)) from None
    weights = _given(context, params.weights, architecture) if params.weights is not None else None
    if params.training.epochs == 0:
        return Output(weights)
    data = TrainingData(examples(context, TRAIN), examples(context, VALIDATION), params.classes)
    setup = Setup(params.seed or 0, params.device, params.threads, checkpoint=context.checkpoint)
    start = Start(architecture, weights)
    fit = train_backbone(start, data, params.training, setup, augmented=params.augmented)
    return Output(fit.weights, epoch_rows("backbone", fit.epochs))


def _given(context: JobContext, sha256: str, architecture: Architecture) -> Tensors:
    """The given weights, checked here because submitting can check only those of a MobileNetV2."""
    try:
        weights = parse_weights(context.store.read_bytes(uri_of(sha256), sha256), sha256)
        load_weights(weights, architecture)  # to check them; what it makes is dropped
    except BadArtifact as error:
        raise Refused(f"the given weights: {error}. Submit them again.") from None
    except WeightsError as error:
        raise Refused(f"the given {error}") from None
    return weights
