import numpy as np
import pytest
import torch

from early_exit.features import extract, normalise
from early_exit.network import Backbone, fold_batchnorm
from early_exit.settings import Architecture


def test_images_are_normalised_with_the_papers_statistics():
    image = np.zeros((1, 2, 3, 3), np.uint8)
    image[0, 1, 2] = (255, 51, 0)
    x = normalise(image)
    assert (x.shape, x.dtype) == ((1, 3, 2, 3), torch.float32)
    # (1 − 0.45734) / 0.26754, (0.2 − 0.43877) / 0.26381, (0 − 0.40734) / 0.27768
    assert x[0, :, 1, 2].tolist() == pytest.approx([2.02836, -0.90507, -1.46695], abs=1e-4)
    assert x[0, 0, 0, 0].item() == pytest.approx(-1.70945, abs=1e-4)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return fold_batchnorm(Backbone(Architecture(width=0.1, stem_stride=1)))


@pytest.mark.parametrize(("side", "count"), [(32, 21), (130, 3)])
def test_vectors_do_not_depend_on_how_images_are_grouped(backbone, side, count):
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    whole = extract(backbone, images)
    parts = [extract(backbone, images[i:j]) for i, j in ((0, 0), (0, 2), (2, count))]
    assert [vector.shape for vector in whole] == [(count, size) for size in backbone.pooled_sizes]
    assert all(vector.dtype == np.float32 for vector in whole)
    for exit_, vector in enumerate(whole):
        assert np.array_equal(vector, np.concatenate([part[exit_] for part in parts]))


def test_vectors_are_the_backbones(backbone):
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = backbone(normalise(images))
    for got, vector in zip(extract(backbone, images), expected, strict=True):
        np.testing.assert_allclose(got, vector.numpy(), rtol=1e-4, atol=1e-5)  # float32, other batch size
