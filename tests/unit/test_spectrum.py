import numpy as np
import pytest

from early_exit.images import through_jpeg
from early_exit.spectrum import released_spectrum, released_training_spectrum, spectrum


def test_the_spectrum_of_a_uniform_image_is_one_peak_in_the_middle():
    flat = np.full((64, 64, 3), 100, np.uint8)
    values = spectrum(flat, 64)
    assert (values.shape, values.dtype) == ((64, 64), np.float16)
    # F(0) is the sum of the luma: 100·64² = 409,600; log(409,601) = 12.923, to the nearest 1/128.
    assert values[32, 32] == pytest.approx(12.923, abs=1 / 256)
    values[32, 32] = 0
    assert values.max() < 1e-3


def test_luma_weighs_red_and_blue_the_right_way_round():
    red = np.zeros((32, 32, 3), np.uint8)
    red[:, :, 0] = 200
    # 0.299 · 200 · 32² = 61,235; its logarithm is 11.0225.
    assert spectrum(red, 32)[16, 16] == pytest.approx(11.0225, abs=1 / 256)


def test_vertical_stripes_show_on_the_horizontal_axis():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    values = spectrum(stripes, 32).astype(float)
    # Period 2: all but the mean lies at the highest frequency, column 0 of the middle row.
    assert values[16, 0] == pytest.approx(np.log1p(255 * 32 * 32 / 2), abs=1 / 256)
    assert np.count_nonzero(values > 1e-3) == 2


def test_the_image_is_resized_and_cropped_to_the_size():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    assert spectrum(image, 32).shape == (32, 32)
    assert np.array_equal(spectrum(image, 70), spectrum(np.ascontiguousarray(image[:, 10:80]), 70))


def test_white_gives_the_largest_value_there_is():
    white = np.full((224, 224, 3), 255, np.uint8)
    assert spectrum(white, 224).max() == pytest.approx(np.log1p(255 * 224**2), abs=0.008)


def test_the_released_spectrum_of_one_grey_is_a_single_bin_that_wraps_around():
    """A 4×4 image of grey 100: |F| is 1,600 at zero frequency, 20·ln 1600 = 147.6; elsewhere ln 0 becomes 0."""
    image = np.full((4, 4, 3), 100, np.uint8)
    expected = np.zeros((4, 4), np.uint8)
    expected[2, 2] = 147
    np.testing.assert_array_equal(released_spectrum(image, 4), expected)
    bright = np.full((300, 300, 3), 255, np.uint8)  # 20·ln(255·90,000) = 339.0, and 339 − 256 = 83
    assert released_spectrum(bright, 300)[150, 150] in (82, 83)


def test_released_training_swaps_the_weights_of_red_and_blue():
    """Of pure red 200 the luma is 23 there (0.114) and 60 (0.299) at the edge: 20·ln(16·60) = 137, of 23 118."""
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert released_spectrum(red, 4)[2, 2] == 137
    before_jpeg = np.zeros((4, 4), np.uint8)
    before_jpeg[2, 2] = 118
    np.testing.assert_array_equal(released_training_spectrum(red, 4), through_jpeg(before_jpeg))
