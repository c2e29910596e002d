import numpy as np
import pytest

from early_exit.distortion import distort, gaussian_blur, gaussian_noise, wrap


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_wrapping_truncates_towards_zero_and_then_takes_modulo_256():
    values = np.array([-0.5, -1.2, -20.7, 255.5, 256.2, 290.9, -256.0, -257.9, 0.0, 12.9])
    assert wrap(values).tolist() == [0, 255, 236, 255, 0, 34, 0, 255, 0, 12]


@pytest.mark.parametrize("sigma", [1, 2, 3, 4, 5])
def test_the_blur_kernel_reaches_two_sigma_to_each_side(sigma):
    dot = np.zeros((61, 61, 3), np.uint8)
    dot[28:33, 28:33] = 255
    changed = np.flatnonzero(gaussian_blur(dot, sigma)[30, :, 0])
    # A pixel at 2σ still weighs 0.054/σ: one grey level of 255 even at σ = 5.
    assert (changed[0], changed[-1]) == (28 - 2 * sigma, 32 + 2 * sigma)


def test_blurring_darkens_the_edges_because_black_lies_outside():
    white = np.full((60, 60, 3), 255, np.uint8)
    blurred = gaussian_blur(white, 5)
    assert blurred[30, 30].tolist() == [255] * 3
    # A pixel on the edge keeps the kernel's half and its middle column; a corner about a quarter.
    assert 128 <= blurred[30, 0, 0] <= 150
    assert 64 <= blurred[0, 0, 0] <= 88


def test_noise_has_its_sigma_and_the_same_for_the_same_generator():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = gaussian_noise(grey, 10, np.random.default_rng(1))
    # 120,000 draws: σ is known to 0.02, truncation pulls the mean down by one half.
    assert noisy.std() == pytest.approx(10, abs=0.1)
    assert noisy.mean() == pytest.approx(127.5, abs=0.15)
    assert np.array_equal(noisy, gaussian_noise(grey, 10, np.random.default_rng(1)))
    assert np.corrcoef(noisy[:, :, 0].ravel(), noisy[:, :, 1].ravel())[0, 1] == pytest.approx(0, abs=0.03)


def test_noise_on_black_wraps_to_white():
    black = np.zeros((100, 100, 3), np.uint8)
    noisy = gaussian_noise(black, 10, np.random.default_rng(1))
    # Below −1 in one draw of two, but for the 4 % of N(0, 10²) between −1 and 0.
    assert (noisy > 128).mean() == pytest.approx(0.46, abs=0.01)


@pytest.mark.parametrize(("kind", "level"), [("pristine", 0), ("gaussian_blur", 0), ("gaussian_noise", 0)])
def test_no_distortion_gives_the_picture_itself(picture, kind, level):
    assert distort(picture, kind, level, np.random.default_rng(0)) is picture


@pytest.mark.parametrize("kind", ["gaussian_blur", "gaussian_noise"])
def test_distorting_leaves_the_original_as_it_was(picture, kind):
    before = picture.copy()
    distorted = distort(picture, kind, 5, np.random.default_rng(0))
    assert np.array_equal(picture, before)
    assert (distorted.shape, distorted.dtype) == (picture.shape, np.uint8)
    assert not np.array_equal(distorted, picture)


@pytest.mark.parametrize(("kind", "level"), [("motion_blur", 0), ("gaussian_blur", -1)])
def test_an_unknown_kind_or_a_negative_level_is_refused(picture, kind, level):
    with pytest.raises(ValueError, match="distortion"):
        distort(picture, kind, level, np.random.default_rng(0))
