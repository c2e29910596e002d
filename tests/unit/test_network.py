import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models import MobileNetV2

from early_exit.network import (
    Backbone,
    Heads,
    fold_batchnorm,
    layout,
    load_heads,
    load_weights,
    pool_quarters,
    predict_logits,
    to_arrays,
)
from early_exit.settings import Architecture
from early_exit.weights import WeightsError

SMALL = Architecture(width=0.1, stem_stride=1)
PAPERS = Architecture(width=1.0, stem_stride=2)
PAPERS_DROPPED = Architecture(width=1.0, stem_stride=2, drop_blocks=True)


def backbone(architecture=SMALL):
    torch.manual_seed(0)
    return Backbone(architecture).eval()


def trained_batchnorm(module):
    """Statistics and scales as a trained network has them, not zeros and ones."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module


def test_backbone_has_torchvisions_names():
    names = [name for name in MobileNetV2(width_mult=0.1).state_dict() if name.startswith("features.")]
    assert list(backbone().state_dict()) == names


def test_full_width_vectors_have_the_papers_lengths():
    assert Backbone(PAPERS).pooled_sizes == (96, 256, 640, 1280)


def test_stages_have_the_papers_parameter_counts():
    """docs/paper.md §5, the network as intended: branches after blocks 3, 10 and 15, which stay in it."""
    assert layout(PAPERS).stages == ((0, 4), (4, 11), (11, 16), (16, 19))
    features = Backbone(PAPERS).features
    counts = [sum(p.numel() for p in features[a:b].parameters()) for a, b in layout(PAPERS).stages]
    assert counts == [15_792, 223_568, 778_432, 1_206_080]


def test_stage_maps_at_300_have_the_papers_shapes():
    network = Backbone(PAPERS).eval()
    x, shapes = torch.zeros(1, 3, 300, 300), []
    with torch.inference_mode():
        for number in (1, 2, 3):
            x = network.stage(number, x)
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(24, 75, 75), (64, 19, 19), (160, 10, 10)]


def test_the_last_vector_is_what_torchvisions_classifier_sees():
    network = trained_batchnorm(backbone(Architecture(width=0.1, stem_stride=2)))
    reference = MobileNetV2(width_mult=0.1).eval()
    reference.load_state_dict(network.state_dict(), strict=False)
    x = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(network(x)[3], reference.features(x).mean((2, 3)), rtol=0, atol=0)


def test_quarters_are_the_two_by_two_adaptive_average():
    x = torch.rand(2, 3, 7, 10)
    expected = F.adaptive_avg_pool2d(x, 2).flatten(1)
    torch.testing.assert_close(pool_quarters(x), expected)


def test_a_stride_of_one_doubles_the_side_of_the_maps():
    x = torch.zeros(1, 3, 32, 32)
    sides = [backbone(Architecture(0.1, stride)).stage(1, x).shape[-1] for stride in (1, 2)]
    assert sides == [16, 8]


def test_folding_batchnorm_keeps_the_vectors():
    network = trained_batchnorm(backbone())
    folded = fold_batchnorm(network)
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        for got, expected in zip(folded(x), network(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)  # float32 over 52 layers
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())


def test_weights_survive_saving_and_loading():
    network = trained_batchnorm(backbone())
    loaded = load_weights(to_arrays(network), SMALL)
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        for got, expected in zip(loaded(x), network(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_weights_of_another_width_are_refused():
    with pytest.raises(
        WeightsError,
        match=r"'features\.0\.0\.weight' is \(8, 3, 3, 3\), but mobilenet_v2 of width 1 has \(32",
    ):
        load_weights(to_arrays(backbone()), PAPERS)


def test_heads_for_257_classes_have_the_papers_parameter_counts():
    """docs/paper.md §5: branches of 4·C inputs, and the final exit."""
    heads = Heads(Backbone(PAPERS).pooled_sizes, classes=257)
    counts = [sum(p.numel() for p in exit_.parameters()) for exit_ in heads.exits]
    assert counts == [24_929, 66_049, 164_737, 329_217]


def test_heads_give_each_exit_its_own_linear_layer():
    heads = load_heads(
        {
            "exits.0.weight": np.array([[1.0], [2.0]], np.float32),
            "exits.1.weight": np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
            "exits.2.weight": np.array([[0.0], [0.0]], np.float32),
            "exits.3.weight": np.array([[-1.0], [1.0]], np.float32),
            **{f"exits.{k}.bias": np.array([0.0, float(k)], np.float32) for k in range(4)},
        }
    )
    vectors = [np.array(v, np.float32) for v in ([[3.0]], [[4.0, 5.0]], [[6.0]], [[7.0]])]
    assert predict_logits(heads, vectors).tolist() == [[[3.0, 6.0], [4.0, 6.0], [0.0, 2.0], [-7.0, 10.0]]]


def test_dropout_stands_before_the_final_layer_only():
    torch.manual_seed(0)
    heads = Heads([50] * 4, classes=2).train()
    vectors = [torch.ones(1, 50)] * 4
    first, second = heads(vectors)[0], heads(vectors)[0]
    assert torch.equal(first[:3], second[:3])
    assert not torch.equal(first[3], second[3])


def test_logits_do_not_depend_on_how_images_are_grouped():
    torch.manual_seed(0)
    heads = Heads([96, 256, 640, 1280], classes=7)
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(5, size)).astype(np.float32) for size in (96, 256, 640, 1280)]
    whole = predict_logits(heads, vectors)
    parts = [predict_logits(heads, [v[i:j] for v in vectors]) for i, j in ((0, 0), (0, 3), (3, 5))]
    assert whole.shape == (5, 4, 7)
    assert np.array_equal(whole, np.concatenate(parts))


def test_heads_that_are_not_four_finite_layers_are_refused():
    good = to_arrays(Heads([2] * 4, classes=3))
    with pytest.raises(WeightsError, match=r"'exits\.1\.bias' is \(2,\), not \(3,\)"):
        load_heads(good | {"exits.1.bias": np.zeros(2, np.float32)})
    with pytest.raises(WeightsError, match=r"'exits\.2\.bias' holds a value that is not finite"):
        load_heads(good | {"exits.2.bias": np.full(3, np.nan, np.float32)})
    with pytest.raises(WeightsError, match="tensors are exits"):
        load_heads({name: array for name, array in good.items() if name != "exits.3.bias"})


def test_without_the_branches_blocks_the_stages_have_the_released_parameters():
    """Blocks 3, 10 and 15 are missing (docs/paper.md §5): 6,960 + 169,296 + 458,432 + 1,206,080 parameters."""
    dropped = Backbone(PAPERS_DROPPED)
    stages = [
        sum(p.numel() for block in dropped.features[first:end] for p in block.parameters())
        for first, end in layout(PAPERS_DROPPED).stages
    ]
    assert stages == [6_960, 169_296, 458_432, 1_206_080]
    assert dropped.pooled_sizes == (96, 256, 640, 1280)


def test_weights_of_dropped_blocks_are_left_out_when_they_are_there():
    whole = Architecture(width=0.1, stem_stride=2)
    dropped = Architecture(width=0.1, stem_stride=2, drop_blocks=True)
    full = to_arrays(Backbone(whole))
    kept = to_arrays(load_weights(full, dropped))
    assert all(np.array_equal(array, full[name]) for name, array in kept.items())
    assert {name.split(".")[1] for name in full} - {name.split(".")[1] for name in kept} == {"3", "10", "15"}
    assert to_arrays(load_weights(kept, dropped)).keys() == kept.keys()
    with pytest.raises(WeightsError, match=r"features\.3\."):
        load_weights(kept, whole)
