import numpy as np
import pytest

from early_exit.distortion import distort, distortion, known
from early_exit.distortions.gaussian_blur import gaussian_blur
from early_exit.distortions.gaussian_noise import gaussian_noise, wrap
from early_exit.distortions.gaussian_noise_clipped import gaussian_noise_clipped
from early_exit.distortions.jpeg import jpeg
from early_exit.distortions.motion_blur import motion_blur

NOTHING_DRAWN = np.random.default_rng(0)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_wrapping_truncates_towards_zero_and_then_takes_modulo_256():
    values = np.array([-0.5, -1.2, -20.7, 255.5, 256.2, 290.9, -256.0, -257.9, 0.0, 12.9])
    assert wrap(values).tolist() == [0, 255, 236, 255, 0, 34, 0, 255, 0, 12]


@pytest.mark.parametrize("sigma", [1, 2, 3, 4, 5])
def test_the_blur_kernel_reaches_two_sigma_to_each_side(sigma):
    dot = np.zeros((61, 61, 3), np.uint8)
    dot[28:33, 28:33] = 255
    changed = np.flatnonzero(gaussian_blur(dot, sigma, NOTHING_DRAWN)[30, :, 0])
    # A pixel at 2σ still weighs 0.054/σ: one grey level of 255 even at σ = 5.
    assert (changed[0], changed[-1]) == (28 - 2 * sigma, 32 + 2 * sigma)


def test_blurring_darkens_the_edges_because_black_lies_outside():
    white = np.full((60, 60, 3), 255, np.uint8)
    blurred = gaussian_blur(white, 5, NOTHING_DRAWN)
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


def test_clipped_noise_is_the_sum_within_0_to_255_without_its_fraction():
    bright = np.full((20, 20, 3), 250, np.uint8)
    noise = np.random.default_rng(3).standard_normal(bright.shape)
    clipped = gaussian_noise_clipped(bright, 40, np.random.default_rng(3))
    assert clipped.ravel().tolist() == [min(255, max(0, int(250 + 40 * z))) for z in noise.ravel()]
    # 250 + 40 z reaches 255 in 45 % of the draws
    assert (clipped == 255).mean() == pytest.approx(0.45, abs=0.05)


def test_clipped_noise_differs_from_the_papers_only_where_that_wraps_around():
    black = np.zeros((100, 100, 3), np.uint8)
    wrapped = gaussian_noise(black, 10, np.random.default_rng(1))
    clipped = gaussian_noise_clipped(black, 10, np.random.default_rng(1))
    assert np.array_equal(clipped, np.where(wrapped > 128, 0, wrapped))
    grey = np.full((100, 100, 3), 128, np.uint8)  # 12 σ from either end
    assert np.array_equal(
        gaussian_noise_clipped(grey, 10, np.random.default_rng(1)),
        gaussian_noise(grey, 10, np.random.default_rng(1)),
    )


@pytest.mark.parametrize(
    ("length", "row"),
    [
        (3, [0, 0, 0, 40, 40, 40, 0, 0, 0]),
        (5, [0, 0, 24, 24, 24, 24, 24, 0, 0]),
        # a pixel and the one right of it, and two to its left: so the dot shows one pixel further to the right
        (4, [0, 0, 0, 30, 30, 30, 30, 0, 0]),
    ],
)
def test_motion_blur_smears_a_dot_along_its_row(length, row):
    dot = np.zeros((3, 9, 3), np.uint8)
    dot[1, 4] = 120
    blurred = motion_blur(dot, length, NOTHING_DRAWN)
    assert blurred[1, :, 0].tolist() == row
    assert not blurred[[0, 2]].any()


def test_motion_blur_takes_black_from_outside():
    white = np.full((2, 9, 3), 255, np.uint8)
    # of five pixels three, four, then all are white
    assert motion_blur(white, 5, NOTHING_DRAWN)[0, :, 0].tolist() == [153, 204, *[255] * 5, 204, 153]


@pytest.mark.parametrize(
    ("level", "grey", "expected"),
    [
        # Quality 10 quantises the mean of a block, 8 · (grey − 128), in steps of 5 · 16 = 80: ten grey levels.
        (90, 128, 128),
        (90, 131, 128),
        (90, 136, 138),
        (90, 161, 158),
        # Quality 75 in steps of 16 / 2 = 8: one.
        (25, 131, 131),
        (25, 136, 136),
    ],
)
def test_jpeg_rounds_a_flat_grey_to_a_step_of_its_quantisation(level, grey, expected):
    flat = np.full((16, 16, 3), grey, np.uint8)
    assert np.unique(jpeg(flat, level, NOTHING_DRAWN)).tolist() == [expected]


def test_a_higher_level_of_jpeg_is_worse(image):
    grey = image[:, :, :1].repeat(3, axis=2)
    errors = [np.abs(jpeg(grey, level, NOTHING_DRAWN) - grey.astype(int)).mean() for level in (1, 50, 95)]
    assert errors == sorted(errors)
    assert errors[0] < 2 < errors[1] < errors[2] / 2


def test_these_are_all_distortions():
    assert known() == ("gaussian_blur", "gaussian_noise", "gaussian_noise_clipped", "jpeg", "motion_blur")


@pytest.mark.parametrize("kind", known())
def test_a_distortion_draws_random_numbers_if_it_says_so(image, kind):
    used, fresh = np.random.default_rng(0), np.random.default_rng(0)
    distort(image, kind, 9, used)
    assert (used.random() != fresh.random()) is distortion(kind).random


@pytest.mark.parametrize("kind", known())
@pytest.mark.parametrize("end", [0, -1])
def test_the_first_and_the_last_level_of_a_distortion_can_be_computed(image, kind, end):
    level = distortion(kind).levels[end]
    assert distort(image, kind, level, np.random.default_rng(0)).shape == image.shape


@pytest.mark.parametrize("kind", ["pristine", *known()])
def test_no_distortion_gives_the_image_itself(image, kind):
    assert distort(image, kind, 0, np.random.default_rng(0)) is image


@pytest.mark.parametrize("kind", known())
def test_distorting_leaves_the_original_as_it_was(image, kind):
    before = image.copy()
    distorted = distort(image, kind, 50, np.random.default_rng(0))
    assert np.array_equal(image, before)
    assert (distorted.shape, distorted.dtype) == (image.shape, np.uint8)
    assert not np.array_equal(distorted, image)


@pytest.mark.parametrize(("kind", "level"), [("fog", 0), ("gaussian_blur", -1), ("gaussian_blur", 256)])
def test_an_unknown_kind_or_a_level_that_it_does_not_have_is_refused(image, kind, level):
    with pytest.raises(ValueError, match="distortion"):
        distort(image, kind, level, np.random.default_rng(0))
