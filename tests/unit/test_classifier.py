import math

import numpy as np
import pytest
import torch

from early_exit.batches import Examples, TrainingData
from early_exit.classifier import DistortionNet, classify, load_classifier, train_classifier
from early_exit.network import to_arrays
from early_exit.settings import Training
from early_exit.training import Setup, exit_losses
from early_exit.weights import WeightsError


@pytest.mark.parametrize(("size", "parameters"), [(224, 7727), (64, 5687)])
def test_the_network_has_the_papers_parameters(size, parameters):
    assert sum(parameter.numel() for parameter in DistortionNet(size).parameters()) == parameters


def test_more_kinds_take_an_output_of_730_parameters_each():
    # as in the 4-class version, 8,457 parameters (docs/paper.md §4)
    assert sum(parameter.numel() for parameter in DistortionNet(224, kinds=4).parameters()) == 7727 + 730


@pytest.mark.parametrize("size", [32, 64, 65, 67])
def test_one_convolution_computes_what_the_papers_layers_do(size):
    torch.manual_seed(0)
    net, spectra = DistortionNet(size), torch.rand(2, size, size) * 10
    x = (spectra / math.log(1 + 255 * size**2)).unsqueeze(1).expand(-1, 3, -1, -1)
    x = torch.max_pool2d(net.second(net.first(x)), 2)
    x = torch.max_pool2d(net.third(x), 2)
    torch.testing.assert_close(net(spectra)[:, 0], net.linear(x.flatten(1)))


def test_the_one_convolution_has_the_layers_gradients():
    torch.manual_seed(0)
    net, spectra = DistortionNet(32), torch.rand(2, 32, 32)
    fused = torch.autograd.grad(net(spectra).sum(), net.first.weight)[0]
    x = (spectra / math.log(1 + 255 * 32**2)).unsqueeze(1).expand(-1, 3, -1, -1)
    x = torch.max_pool2d(net.third(torch.max_pool2d(net.second(net.first(x)), 2)), 2)
    layers = torch.autograd.grad(net.linear(x.flatten(1)).sum(), net.first.weight)[0]
    torch.testing.assert_close(fused, layers)


def spectra(count, seed):
    """Three kinds that differ in their outer frequencies: dark, bright, between."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 3
    images = rng.uniform(4, 5, (count, 32, 32))
    images[:, :, 16:] += np.array([-3.0, 3.0, 0.0])[kinds][:, None, None]
    return images.astype(np.float16), kinds


def trained(rate, epochs=1):
    """On 60 spectra at once, and validated on the same."""
    training = Training(epochs, 60, rate, weight_decay=0, schedule="constant", patience=epochs)
    images, kinds = spectra(60, 0)
    examples = Examples((images,), kinds)
    return train_classifier(TrainingData(examples, examples, classes=3), training, Setup(0))


def test_a_small_step_lowers_the_loss_of_the_spectra_that_it_was_made_for():
    """Adam's first step goes against every gradient's sign, and this one is too short to go too far."""
    (still,), (after,) = trained(rate=1e-12).epochs, trained(rate=1e-4).epochs
    assert after.train_loss == still.train_loss == pytest.approx(still.validation_loss, rel=1e-6)
    assert after.validation_loss < still.validation_loss


def test_answers_are_those_of_the_best_epoch_and_do_not_depend_on_grouping():
    done = trained(rate=5e-3, epochs=5)
    images, kinds = spectra(60, 0)
    net = load_classifier(done.weights, 32)
    kind, confidence = classify(net, images)
    assert (kind.dtype, confidence.dtype) == (np.int64, np.float64)
    with torch.inference_mode():
        loss = exit_losses(net(torch.tensor(images)), torch.tensor(kinds)).item()
    assert loss == pytest.approx(done.epochs[done.best_epoch - 1].validation_loss, rel=1e-5)
    assert np.all((confidence >= 1 / 3) & (confidence <= 1))
    parts = [classify(net, images[i:j]) for i, j in ((0, 0), (0, 7), (7, 60))]
    assert np.array_equal(confidence, np.concatenate([part[1] for part in parts]))


def test_weights_of_another_size_are_refused():
    with pytest.raises(WeightsError, match="size 64"):
        load_classifier(to_arrays(DistortionNet(32)), 64)
