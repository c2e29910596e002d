import io

import numpy as np
import pytest
from PIL import Image

from early_exit import images
from early_exit.images import ImageError, augment, check_decodes, decode, fit, resize_to


def encoded(image, suffix="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    return stream.getvalue()


def coloured(mode, size=(4, 3)):
    return Image.new("RGB", size, (200, 100, 50)).convert(mode)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)


def test_a_lossless_image_is_decoded_as_it_was(noise):
    assert np.array_equal(decode(encoded(Image.fromarray(noise))), noise)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "PNG"), ("RGB", "BMP"), ("CMYK", "TIFF"), ("RGBA", "PNG")]
)
def test_every_colour_mode_becomes_rgb(mode, suffix):
    pixels = decode(encoded(coloured(mode), suffix))
    assert (pixels.shape, pixels.dtype) == ((3, 4, 3), np.uint8)
    assert pixels[0, 0].tolist() == [200, 100, 50]


def test_a_palette_is_looked_up():
    image = coloured("RGB").quantize(4)
    assert decode(encoded(image))[0, 0].tolist() == [200, 100, 50]


def test_16_bit_greys_keep_their_upper_8_bits():
    greys = np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16)
    pixels = decode(encoded(Image.fromarray(greys)))
    assert pixels[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [0x12] * 3, [255] * 3]


def test_transparent_pixels_lie_over_white():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert decode(encoded(image))[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer would turn it by 90°
    assert decode(encoded(coloured("RGB", (4, 2)), "JPEG", exif=exif)).shape == (2, 4, 3)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_truncated_file_is_refused(noise, suffix):
    data = encoded(Image.fromarray(noise), suffix)
    check_decodes(data)
    with pytest.raises(ImageError):
        check_decodes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("data", [b"", b"hello", b"<html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(ImageError):
        decode(data)


def test_a_format_outside_the_list_is_refused():
    with pytest.raises(ImageError, match="formats"):
        decode(encoded(coloured("RGB"), "TGA"))


def test_an_animation_is_refused_and_a_still_gif_is_not():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    with pytest.raises(ImageError, match="frame"):
        decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decode(encoded(frames[0], "GIF"))[0, 0].tolist() == [255, 0, 0]


def test_floating_point_pixels_are_refused():
    with pytest.raises(ImageError, match="range of brightness"):
        decode(encoded(Image.new("F", (2, 2), 0.5), "TIFF"))


def test_a_image_of_too_many_pixels_is_refused_by_its_header():
    # A PGM header needs no pixels behind it to be believed.
    with pytest.raises(ImageError, match="10000×5001 pixels"):
        check_decodes(b"P5 10000 5001 255\n")
    with pytest.raises(ImageError, match="16385×1 pixels"):
        check_decodes(b"P5 16385 1 255\n")


def test_a_file_of_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="101 bytes"):
        decode(b"x" * 101)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (20, 20), (301, 333), (300, 300)])
def test_fit_gives_a_square_of_the_size(shape):
    assert fit(np.zeros((*shape, 3), np.uint8), 64).shape == (64, 64, 3)


def test_fit_only_crops_when_the_shorter_side_is_a_tenth_longer_already():
    image = np.random.default_rng(0).integers(0, 256, (330, 400, 3), dtype=np.uint8)
    assert np.array_equal(fit(image, 300), image[15:315, 50:350])


def test_fit_resizes_with_antialiasing():
    # Columns 0, 255, 0, 255…: without antialiasing a sixth of the size would be black and white again.
    stripes = np.zeros((420, 420, 3), np.uint8)
    stripes[:, 1::2] = 255
    small = fit(stripes, 64)
    assert small.min() > 110
    assert small.max() < 145


def test_a_long_strip_is_cut_before_it_is_enlarged():
    strip = np.zeros((1, 16384, 3), np.uint8)
    strip[:, 8000:8384] = 200
    assert fit(strip, 300).mean() == 200


def test_resizing_to_the_size_it_has_changes_nothing(noise):
    square = noise[:60]
    assert resize_to(square, 60) is square
    assert np.array_equal(resize_to(noise, 60), noise[15:75])


def test_augmenting_depends_on_the_generator_alone(noise):
    before = noise.copy()
    views = [augment(noise, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])
    assert np.array_equal(noise, before)
    assert (views[0].shape, views[0].dtype) == (noise.shape, np.uint8)


def test_every_view_takes_equally_many_random_numbers(noise):
    after = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        augment(noise, rng)
        fresh = np.random.default_rng(seed)
        fresh.random(5)
        after.append(rng.random() == fresh.random())
    assert all(after)


def test_views_are_brightened_greyed_and_mirrored_as_often_as_in_the_paper():
    image = np.zeros((41, 41, 3), np.uint8)
    image[18:23, 10:15] = (200, 100, 100)  # left of the middle, which no rotation by 25° changes
    views = [augment(image, np.random.default_rng(seed)) for seed in range(1000)]
    reds = np.array([view[:, :, 0].max() for view in views])
    grey = np.array([view[:, :, 0].max() == view[:, :, 1].max() for view in views])
    mirrored = np.array([view[:, 21:].any() for view in views])
    jittered = ~grey & (reds != 200)
    # Three standard deviations of 1,000 draws; a jitter of ×1 by a hair may leave 200 as it is.
    assert grey.mean() == pytest.approx(0.125, abs=0.032)
    assert mirrored.mean() == pytest.approx(0.25, abs=0.042)
    assert jittered.mean() == pytest.approx(0.5, abs=0.05)
    assert 159 <= reds[jittered].min() <= 165
    assert 235 <= reds[jittered].max() <= 240


def test_rotation_leaves_black_corners():
    white = np.full((100, 100, 3), 255, np.uint8)
    corners = [augment(white, np.random.default_rng(seed))[0, 0, 0] for seed in range(20)]
    assert corners.count(0) >= 18
