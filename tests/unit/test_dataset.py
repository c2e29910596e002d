import io
import os
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from early_exit.dataset import DatasetError, InputChanged, read, scan, split_class


def png(*seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def root(tmp_path):
    """Two classes of ten images each."""
    for label, name in enumerate(("ape", "bee")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "set" / name / f"{index}.png").write_bytes(png(label, index))
    return tmp_path / "set"


def by_path(dataset):
    return {image.path: image for image in dataset.images}


def test_images_come_in_the_order_of_sorted_folders_and_files(root):
    dataset = scan(root, 0)
    assert dataset.classes == ("ape", "bee")
    assert [image.path for image in dataset.images] == [
        f"{name}/{i}.png" for name in ("ape", "bee") for i in range(10)
    ]
    assert [image.index for image in dataset.images] == list(range(20))
    assert [image.label for image in dataset.images] == [0] * 10 + [1] * 10


def test_nested_folders_are_listed_as_torchvision_does(root):
    for place in ("a-b/1.png", "a/z/2.PNG", "a/3.png", "notes.txt"):
        (root / "ape" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "ape" / "0.png", root / "ape" / place)
    dataset = scan(root, 0)
    # Folders in the order of their whole paths, in which "-" comes before "/".
    nested = [image.path for image in dataset.images[10:13]]
    assert nested == ["ape/a/3.png", "ape/a-b/1.png", "ape/a/z/2.PNG"]
    assert dataset.ignored == 1


def test_each_class_is_split_80_10_10_whatever_the_other_classes_hold(root):
    dataset = scan(root, 3)
    counts = Counter((image.label, image.split) for image in dataset.images)
    assert counts == {(k, s): n for k in (0, 1) for s, n in (("train", 8), ("validation", 1), ("test", 1))}
    (root / "ape" / "new.png").write_bytes(png(9))
    before, after = by_path(dataset), by_path(scan(root, 3))
    assert all(after[path].split == before[path].split for path in before if path.startswith("bee/"))


@pytest.mark.parametrize(
    ("images", "sizes"), [(10, (8, 1, 1)), (11, (8, 1, 2)), (60, (48, 6, 6)), (119, (95, 12, 12))]
)
def test_the_rest_after_80_percent_is_halved(images, sizes):
    splits = split_class(images, 0, 0)
    assert tuple(splits.count(split) for split in ("train", "validation", "test")) == sizes
    assert splits != split_class(images, 1, 0)


def test_the_images_of_a_split_come_in_index_order(root):
    dataset = scan(root, 0)
    train = [image.index for image in dataset.of_split("train")]
    assert train == sorted(train)
    assert len(train) == 16
    with pytest.raises(ValueError, match="unknown split"):
        dataset.of_split("dev")


def test_the_digest_changes_with_bytes_split_and_names_and_not_with_times(root):
    digest = scan(root, 0).digest
    os.utime(root / "ape" / "0.png", ns=(1, 1))
    assert scan(root, 0).digest == digest
    assert scan(root, 1).digest != digest
    (root / "ape" / "0.png").write_bytes(png(77))
    changed = scan(root, 0).digest
    assert changed != digest
    (root / "bee" / "9.png").rename(root / "bee" / "99.png")
    assert scan(root, 0).digest not in (digest, changed)


def test_an_unchanged_file_is_not_opened_again(root):
    first = scan(root, 0)
    file = root / "ape" / "0.png"
    before = file.stat()
    file.write_bytes(b"x" * before.st_size)  # whoever opens it now finds no image
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan(root, 0, by_path(first)).images == first.images


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_file_is_opened_again(root, change):
    first = scan(root, 0)
    file = root / "ape" / "0.png"
    before = file.stat()
    file.write_bytes(b"x" * (before.st_size + (change == "size")))
    os.utime(file, ns=(0, before.st_mtime_ns + (change == "time")))
    with pytest.raises(DatasetError, match=r"ape/0\.png"):
        scan(root, 0, by_path(first))


def test_all_bad_files_are_listed_at_once_and_none_is_waited_for(root):
    os.mkfifo(root / "ape" / "pipe.png")
    (root / "ape" / "dangling.png").symlink_to("nowhere")
    (root / "ape" / "empty.png").touch()
    (root / "bee" / "cut.png").write_bytes(png(1)[:-30])
    (root / "bee" / "line\nbreak.png").write_bytes(b"text")
    with pytest.raises(DatasetError) as caught:
        scan(root, 0)
    first, *lines = str(caught.value).splitlines()
    assert first == f"dataset '{root}': 5 of its files cannot be used. Repair or remove:"
    assert [line.partition(": ")[0] for line in lines] == [
        "ape/dangling.png",
        "ape/empty.png",
        "ape/pipe.png",
        "bee/cut.png",
        r"'bee/line\nbreak.png'",
    ]
    assert lines[0].endswith("cannot be read (No such file or directory)")
    assert lines[2].endswith("not a regular file")


def test_a_name_that_is_not_utf_8_is_listed(root):
    with open(os.fsencode(root / "ape") + b"/\xff.png", "wb") as file:
        file.write(png(1))
    with pytest.raises(DatasetError, match="name is not UTF-8"):
        scan(root, 0)


def test_links_to_files_are_images_and_loops_of_folders_are_listed(root):
    (root / "ape" / "link.png").symlink_to(root / "bee" / "0.png")
    assert len(scan(root, 0).images) == 21
    (root / "ape" / "loop").symlink_to(root / "ape")
    (root / "bee" / "up").symlink_to(root)
    with pytest.raises(DatasetError, match="2 of its files") as caught:
        scan(root, 0)
    assert "ape/loop: a link to a folder" in str(caught.value)


def test_files_without_an_image_suffix_are_ignored_and_counted(root):
    (root / "README").write_text("no image")
    (root / "ape" / "RENAME2").write_text("no image")
    dataset = scan(root, 0)
    assert (len(dataset.images), dataset.ignored) == (20, 2)


def make_file(folder):
    folder.write_text("a file")


def make_classless(folder):
    folder.mkdir()
    (folder / "0.png").write_bytes(png(0))


def make_one_class(folder):
    (folder / "ape").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: None, "there is no such folder"),
        (make_file, "it is not a folder"),
        (lambda folder: folder.mkdir(), "it is empty"),
        (make_classless, "it has no class folders"),
        (make_one_class, "only one class folder, ape"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path, make, why):
    make(tmp_path / "set")
    with pytest.raises(DatasetError) as caught:
        scan(tmp_path / "set", 0)
    assert str(caught.value).startswith(f"dataset '{tmp_path / 'set'}': {why}. ")


def test_classes_with_too_few_images_are_listed_with_their_counts(root):
    (root / "cat").mkdir()
    (root / "bee" / "0.png").unlink()
    with pytest.raises(DatasetError, match="2 of 3 classes have too few images") as caught:
        scan(root, 0)
    assert str(caught.value).splitlines()[1:] == ["bee: 9 images", "cat: 0 images"]


def test_reading_gives_the_bytes_that_were_scanned(root):
    image = scan(root, 0).images[0]
    assert read(root, image) == png(0, 0)


def test_reading_a_file_that_changed_names_it(root):
    image = scan(root, 0).images[3]
    (root / image.path).write_bytes(png(5))
    with pytest.raises(InputChanged, match=r"ape/3\.png changed") as caught:
        read(root, image)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_reading_a_file_that_became_a_pipe_does_not_wait(root):
    image = scan(root, 0).images[0]
    (root / image.path).unlink()
    os.mkfifo(root / image.path)
    with pytest.raises(InputChanged):
        read(root, image)


def given(root, **moved):
    """A split that has the last image of each class for tests, the one before it for validation."""
    parts = {8: "validation", 9: "test"}
    split = {f"{name}/{i}.png": parts.get(i, "train") for name in ("ape", "bee") for i in range(10)}
    return split | moved


def test_a_given_split_is_taken_as_it_is(root):
    dataset = scan(root, given(root))
    assert {image.path: image.split for image in dataset.images} == given(root)
    assert [image.path for image in dataset.of_split("test")] == ["ape/9.png", "bee/9.png"]
    swapped = given(root, **{"ape/9.png": "validation", "ape/8.png": "test"})
    assert scan(root, swapped, by_path(dataset)).digest != dataset.digest


def test_the_seeded_split_given_back_is_the_same_dataset(root):
    seeded = scan(root, 3)
    written = {image.path: image.split for image in seeded.images}
    assert scan(root, written) == seeded
    assert scan(root, written).digest == seeded.digest


def test_a_given_split_may_have_small_classes_but_no_empty_ones(root):
    (root / "cat").mkdir()
    with pytest.raises(
        DatasetError, match=r"1 of 3 classes have too few images. A class needs at least 1; .*\ncat: 0 images"
    ):
        scan(root, given(root))
    (root / "cat" / "0.png").write_bytes(png(7))
    assert len(scan(root, given(root, **{"cat/0.png": "train"})).images) == 21


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda split: [split.pop(f"ape/{i}.png") for i in (0, 1, 2, 3)],
            "4 images are not in the split file: ape/0.png, ape/1.png, ape/2.png. "
            "The file must name every image once.",
        ),
        (
            lambda split: split.update({"cat/1.png": "test", "line\nbreak.png": "train"}),
            r"2 paths in the split file are not images of the dataset: cat/1.png, 'line\nbreak.png'. "
            "The file must name every image once.",
        ),
        (
            lambda split: split.update({"ape/9.png": "train", "bee/9.png": "train"}),
            "the split file has no image for test. Each part needs at least one.",
        ),
    ],
)
def test_a_split_of_other_images_is_refused_with_the_first_of_them(root, change, why):
    split = given(root)
    change(split)
    with pytest.raises(DatasetError) as caught:
        scan(root, split)
    assert str(caught.value) == f"dataset '{root}': {why}"
