import hashlib

import numpy as np
import pytest

from early_exit import synthetic
from early_exit.images import decode
from early_exit.synthetic import GLYPHS, draw, draw_glyph


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_every_glyph_gets_equally_many_images(tmp_path):
    draw(tmp_path / "glyphs", 20, 32, seed=0)
    assert sorted(contents(tmp_path / "glyphs")) == sorted(
        f"{glyph}/000{i}.png" for glyph in GLYPHS for i in (0, 1)
    )


def test_a_file_holds_the_pixels_that_were_drawn(tmp_path):
    draw(tmp_path / "glyphs", 10, 32, seed=5)
    stored = decode((tmp_path / "glyphs" / "R" / "0000.png").read_bytes())
    expected = draw_glyph("R", 32, np.random.default_rng([5, GLYPHS.index("R"), 0]))
    assert np.array_equal(stored, expected)


def test_the_seed_decides_and_more_images_change_none(tmp_path):
    for name, images, seed in (("a", 10, 0), ("b", 10, 0), ("more", 20, 0), ("other", 10, 1)):
        draw(tmp_path / name, images, 32, seed)
    first = contents(tmp_path / "a")
    assert contents(tmp_path / "b") == first
    assert contents(tmp_path / "more").items() >= first.items()
    assert not contents(tmp_path / "other").items() & first.items()


def test_no_two_images_are_equal(tmp_path):
    draw(tmp_path / "glyphs", 100, 32, seed=0)
    assert len(set(contents(tmp_path / "glyphs").values())) == 100


def test_glyph_and_background_differ_in_brightness():
    for seed in range(20):
        image = draw_glyph("H", 70, np.random.default_rng(seed)).mean(axis=2)
        middle, corners = image[20:50, 20:50], image[[0, 0, -1, -1], [0, -1, 0, -1]]
        contrast = max(middle.max() - corners.max(), corners.min() - middle.min())
        assert contrast > 30


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path):
    (tmp_path / "glyphs").mkdir()
    draw(tmp_path / "glyphs", 10, 32, seed=0)
    assert contents(tmp_path) == {}


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "GLYPHS", "A\0")  # no folder can be called so
    with pytest.raises(ValueError, match="null"):
        draw(tmp_path / "glyphs", 10, 32, seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("images", [0, -10, 15])
def test_images_that_cannot_be_shared_equally_are_refused(tmp_path, images):
    with pytest.raises(ValueError, match="divided equally"):
        draw(tmp_path / "glyphs", images, 32, seed=0)
