"""Every file of ``early_exit/backbones``, and what is refused about one."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet18

import early_exit.backbones
import tasks.stages.train_backbone
from db.artifacts import ArtifactStore
from db.engine import open_engine
from db.jobs import Claim
from early_exit.backbone import BackboneError, known, recipe
from early_exit.backbones.resnet18 import cut
from early_exit.batches import Examples, TrainingData
from early_exit.features import extract
from early_exit.network import Backbone, Heads, fold_batchnorm, layout, load_weights, to_arrays
from early_exit.payload import final_answers
from early_exit.settings import Architecture, BackboneTraining
from early_exit.training import Setup, Start, train_backbone
from early_exit.weights import WeightsError
from orchestrator.errors import UsageError
from orchestrator.plan.paper import DatasetShape, plan
from orchestrator.plan.spec import resolve
from orchestrator.submit.request import Request, check
from tasks.job_io import JobContext, Refused
from tasks.params import TrainBackbone


def small(name):
    """The narrowest that the backbone comes in."""
    return Architecture(0.25 if "width" in recipe(name).parameters else 1.0, 2, backbone=name)


@pytest.fixture(params=known())
def network(request):
    """With BatchNorm as in a trained network, not zeros and ones."""
    torch.manual_seed(0)
    made = Backbone(small(request.param)).eval()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return made


@pytest.fixture
def architecture(request, network):
    return small(request.node.callspec.params["network"])


@pytest.fixture
def written(tmp_path, monkeypatch):
    """``written(text)``: the name of a backbone of that file, in a folder of its own."""
    monkeypatch.setattr(early_exit.backbones, "__path__", [*early_exit.backbones.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget():
        sys.modules.pop("early_exit.backbones.of_a_test", None)
        importlib.invalidate_caches()
        for cached in (known, recipe, layout):
            cached.cache_clear()

    def write(text):
        (tmp_path / "of_a_test.py").write_text(text)
        forget()
        return "of_a_test"

    yield write
    forget()


PLAIN = """
from early_exit.backbone import Recipe

def blocks():
    from torch import nn

    return [nn.Conv2d(channels, 4, 3, 1, 1) for channels in (3, 4, 4, 4, 4)]

"""


def plain(**declared):
    """Five convolutions in a row, declared so."""
    arguments = "".join(f", {name}={value!r}" for name, value in declared.items())
    return f"{PLAIN}BACKBONE = Recipe(blocks{arguments})"


# ---- all of them --------------------------------------------------------------------------------------


def test_the_papers_backbone_and_two_more_are_there():
    assert {"mobilenet_v2", "resnet18", "mobilenet_v3_large"} <= set(known())


def test_the_four_stages_are_all_blocks_in_order(network):
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.features(x)
        for number in (1, 2, 3, 4):
            x = network.stage(number, x)
    assert torch.equal(x, expected)


def test_vectors_are_as_long_as_the_heads_expect(network):
    with torch.inference_mode():
        vectors = network(torch.rand(2, 3, 64, 64))
    assert [tuple(vector.shape) for vector in vectors] == [(2, size) for size in network.pooled_sizes]


def test_folding_batchnorm_keeps_the_vectors_of_every_backbone(network):
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for got, expected in zip(fold_batchnorm(network)(x), network(x), strict=True):
            scale = expected.abs().max().item()
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * scale)  # float32 over all layers


def test_weights_survive_saving_and_loading(network, architecture):
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for got, expected in zip(load_weights(to_arrays(network), architecture)(x), network(x), strict=True):
            assert torch.equal(got, expected)


def test_the_first_wrong_weight_is_named(network, architecture):
    arrays = to_arrays(network)
    name = next(name for name in arrays if name.endswith("weight"))
    wrong = np.zeros((1, 2), np.float32)
    with pytest.raises(WeightsError, match=rf"'{name}' is \(1, 2\), but {architecture.backbone} of width"):
        load_weights(arrays | {name: wrong}, architecture)
    del arrays[name]
    with pytest.raises(WeightsError, match=f"'{name}' is missing; {architecture.backbone} of width"):
        load_weights(arrays, architecture)


def test_a_stride_of_one_doubles_the_maps_where_a_backbone_takes_it(architecture):
    whole = layout(Architecture(architecture.width, 1, backbone=architecture.backbone)).blocks
    halved = layout(architecture).blocks
    if "stem_stride" in recipe(architecture.backbone).parameters:
        assert (whole[0].height, halved[0].height) in [(300, 150), (150, 75)]


def test_images_are_trained_on_extracted_and_sent(network, architecture):
    """An image's bits depend on no other image, whatever the network is made of."""
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    training = BackboneTraining(1, 3, 1e-3, 0.0, "constant", 1)
    examples = Examples((images,), np.arange(9) % 3)
    data = TrainingData(examples, examples, classes=3)
    done = train_backbone(Start(architecture, None), data, training, Setup(0))
    trained = load_weights(done.weights, architecture)
    moved = [
        n
        for n, parameter in network.named_parameters()
        if (done.weights[n] != parameter.detach().numpy()).any()
    ]
    assert len(moved) == len(list(network.parameters()))
    folded = fold_batchnorm(trained)
    vectors, alone = extract(folded, images), extract(folded, images[4:5])
    assert all(np.array_equal(many[4:5], one) for many, one in zip(vectors, alone, strict=True))
    answers = final_answers(folded, Heads(folded.pooled_sizes, 3), images)
    assert np.array_equal(answers["json"], answers["float32"])


# ---- the two examples ---------------------------------------------------------------------------------


def test_resnets_last_vector_is_what_torchvisions_classifier_sees():
    torch.manual_seed(0)
    reference = resnet18().eval()
    arrays = {f"features.{n}": t.numpy() for n, t in nn.Sequential(*cut(reference)).state_dict().items()}
    loaded = load_weights(arrays, Architecture(1.0, 2, backbone="resnet18"))
    reference.fc = nn.Identity()
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x)[3], reference(x), rtol=1e-5, atol=1e-6)


def test_mobilenet_v3_takes_torchvisions_own_names():
    torch.manual_seed(0)
    reference = mobilenet_v3_large().eval()
    arrays = {n: t.numpy() for n, t in reference.state_dict().items() if n.startswith("features.")}
    loaded = load_weights(arrays, Architecture(1.0, 2, backbone="mobilenet_v3_large"))
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x)[3], reference.features(x).mean((2, 3)), rtol=0, atol=0)


# ---- given weights ------------------------------------------------------------------------------------


@pytest.fixture
def taken(tmp_path):
    """``taken(arrays)``: what train-backbone makes of a frozen ResNet-18's given weights, planned with a version."""
    store = ArtifactStore(str(tmp_path / "artifacts"))
    engine = open_engine(f"sqlite:///{tmp_path / 'database.sqlite'}")

    def take(arrays, version=1):
        digest = store.write_bytes(save(arrays), "given").sha256
        architecture, training = Architecture(backbone="resnet18"), BackboneTraining(epochs=0)
        params = TrainBackbone(3, architecture, digest, False, training, None, "cpu", 1, version)
        claim = Claim(1, 1, 1, 0, params.stage, params.queue, "", "", "key", {}, alone=False)
        return tasks.stages.train_backbone.compute(params, JobContext(claim, engine, store)).tensors

    return take


@pytest.mark.parametrize("network", ["resnet18"], indirect=True)
def test_given_weights_of_another_backbone_are_taken_as_they_are(taken, network):
    given = to_arrays(network)
    made = taken(given)
    assert made.keys() == given.keys()
    assert all(np.array_equal(made[name], array) for name, array in given.items())


def test_a_backbone_of_another_version_is_refused(taken):
    with pytest.raises(
        Refused, match="planned with version 2 of backbone resnet18, but version 1 is here: submit"
    ):
        taken({}, version=2)


@pytest.mark.parametrize("network", ["resnet18"], indirect=True)
def test_given_weights_that_do_not_fit_fail_the_first_job_with_one_line(taken, network):
    name = "features.1.conv1.weight"
    with pytest.raises(Refused) as error:
        taken(to_arrays(network) | {name: np.zeros((64, 64, 1, 1), np.float32)})
    assert str(error.value) == (
        f"the given weights: '{name}' is (64, 64, 1, 1), but resnet18 of width 1 has (64, 64, 3, 3)"
    )


# ---- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["architecture.backbone=resnet19"],
            "field 'architecture': unknown backbone 'resnet19': "
            "early_exit/backbones/ has mobilenet_v2, mobilenet_v3_large, resnet18.",
        ),
        (
            ["architecture.backbone=resnet18", "architecture.width=0.5"],
            "field 'architecture': resnet18 has one width: set architecture.width=1.",
        ),
        (
            ["architecture.backbone=resnet18", "fidelity=released"],
            "fidelity released drops blocks, which resnet18 cannot do without.",
        ),
    ],
)
def test_what_a_backbone_cannot_do_is_refused_in_one_line(settings, message):
    with pytest.raises(UsageError) as error:
        resolve("paper", settings)
    assert str(error.value) == message


def test_imagenet_weights_are_refused_for_another_backbone():
    settings = ["architecture.backbone=resnet18", "architecture.width=1"]
    options = {"dry_run": False, "wait": False, "in_process": False}
    with pytest.raises(
        UsageError, match=r"these are mobilenet_v2's. Save those of resnet18 as docs/extending\.md"
    ):
        check(Request("full-paper", None, None, "imagenet", None, settings, None, **options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN, r"backbone 'of_a_test': '\S+of_a_test\.py' declares no BACKBONE = Recipe\("),
        (f"{PLAIN}BACKBONE = blocks", r"declares no BACKBONE = Recipe\("),
        (
            f"{PLAIN}BACKBONE = Recipe(lambda depth: [])",
            "its file cannot be loaded: blocks takes depth; it may take width, stem_stride, drop_blocks",
        ),
        ("def blocks(:", "its file cannot be loaded: invalid syntax"),
        ("import nothing_like_it", "its file cannot be loaded: No module named 'nothing_like_it'"),
    ],
)
def test_a_file_that_is_no_backbone_is_refused_when_its_run_is_submitted(written, text, message):
    with pytest.raises(UsageError, match=message):
        resolve("paper", [f"architecture.backbone={written(text)}"])


@pytest.mark.parametrize("branches", [(1, 2, 4), (2, 1, 3), (-1, 1, 2), (1, 1, 2)])
def test_fixed_branches_that_make_no_four_stages_are_refused(written, branches):
    architecture = Architecture(backbone=written(plain(branch_blocks=branches)))
    with pytest.raises(
        BackboneError, match=r"'of_a_test': branch_blocks is .*, not three of 0 to 3 in rising"
    ):
        layout(architecture)


def test_fixed_branches_stand_where_the_file_says(written):
    """The rule would put them after blocks 1, 2 and 3: 3/19, 7/19, 11/19, 15/19 of the cost."""
    architecture = Architecture(backbone=written(plain(branch_blocks=(0, 1, 2))))
    assert layout(architecture).stages == ((0, 1), (1, 2), (2, 3), (3, 5))


def test_the_rule_places_the_branches_of_a_new_file(written):
    assert layout(Architecture(backbone=written(plain()))).branches == (1, 2, 3)


def test_the_version_of_a_file_is_what_it_declares_and_one_otherwise(written):
    assert recipe(written(plain())).version == 1
    assert recipe(written(plain(version=3))).version == 3


def test_only_a_backbone_that_can_do_without_its_blocks_drops_them():
    assert Architecture(drop_blocks=True).backbone == "mobilenet_v2"
    with pytest.raises(ValueError, match="resnet18 has no blocks that it can do without"):
        Architecture(backbone="resnet18", drop_blocks=True)


def test_another_version_of_a_backbones_file_changes_the_keys_of_what_is_made_with_it(written):
    dataset = DatasetShape("d", 3, {"train": 8, "validation": 4, "test": 4})
    releases = dict.fromkeys(("numpy", "opencv", "pillow", "torch", "torchvision"), "1.0")

    def keys(text):
        spec = resolve("paper", [f"architecture.backbone={written(text)}"])
        return {job.params.stage: job.key for job in plan(spec, dataset, releases).jobs}

    first, second = keys(plain()), keys(plain(version=2))
    changed = {stage for stage in first if first[stage] != second[stage]}
    assert {"train-backbone", "features", "predict", "measure"} <= changed
    assert not changed & {"prepare", "distort", "spectra", "train-classifier", "classify"}


def test_knowing_every_backbones_parameters_loads_no_torch():
    code = (
        "import sys; from early_exit.backbone import known, recipe\n"
        "assert all(recipe(name).parameters for name in known()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
