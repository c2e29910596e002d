"""Exported folders hold what the artifacts hold, under the names that the released scripts give."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

CONDITIONS = [
    ("pristine", 0),
    *(("gaussian_blur", level) for level in (1, 3)),
    *(("gaussian_noise", level) for level in (10, 40)),
]
SIZE = 32
"""Side of the small run's images and of its spectra."""


@pytest.fixture(scope="module")
def made(new_home, small):
    """The home of two runs: 1 made the distorted dataset, 2 the spectra."""
    home = new_home()
    for plan in ("distorted-dataset", "spectra"):
        output = home.command("submit", plan, "--in-process", *small())
        assert output.returncode == 0, output.stderr
    return home


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def exported(home, *arguments):
    """Run the command, which must succeed; what it prints."""
    done = home.command("export", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(home, *arguments):
    """The one line with which the command refuses."""
    done = home.command("export", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").removesuffix("\n")


def images_of_test(home):
    """(dataset position, path, label) of the test split."""
    return home.rows('SELECT "index", path, label FROM images WHERE split = \'test\' ORDER BY "index"')


def artifacts(home, run, array):
    """{(kind, level): {dataset position: pixels or spectrum}}, from the stored files and the jobs' labels."""
    found = {}
    statement = (
        "SELECT j.stage, j.label, a.uri FROM jobs j JOIN artifacts a ON a.key = j.key WHERE j.run_id = ?"
    )
    for stage, label, uri in home.rows(statement, run):
        condition = label.rpartition(", ")[0]
        if stage == "prepare" and label.startswith("test ") and array == "pixels":
            condition = "pristine 0"
        elif stage != {"pixels": "distort", "spectra": "spectra"}[array] or " " not in condition:
            continue
        kind, level = condition.split(" ")
        tensors = load_file(home.path / "artifacts" / uri)
        images = dict(zip(tensors["images"].tolist(), tensors[array], strict=True))
        found.setdefault((kind, int(level)), {}).update(images)
    return found


def pixels(path):
    with Image.open(path) as image:
        return image.format, np.array(image)


def through_jpeg(array):
    """What Pillow's default JPEG makes of it."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG")
    return np.array(Image.open(stream))


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_png_files_are_the_images_to_the_bit(made, out):
    said = exported(made, "distorted-dataset", "1", "--out", out, "--format", "png")
    assert said == f"distorted-dataset of run 1: 50 files of 10 images in '{out}'.\n"
    stored = artifacts(made, 1, "pixels")
    assert sorted(stored) == sorted(CONDITIONS)
    expected = [f"{kind}/{level}/{n}.png" for kind, level in CONDITIONS for n in range(1, 11)]
    assert names(out) == sorted([*expected, "index.csv"])
    for kind, level in CONDITIONS:
        for n, (index, _, _) in enumerate(images_of_test(made), start=1):
            form, read = pixels(out / kind / str(level) / f"{n}.png")
            assert form == "PNG"
            assert read.shape == (SIZE, SIZE, 3)
            np.testing.assert_array_equal(read, stored[kind, level][index])


def test_jpg_files_are_the_images_as_pillow_compresses_them(made, out):
    exported(made, "distorted-dataset", "1", "--out", out, "--kind", "gaussian_noise", "--level", "40")
    stored = artifacts(made, 1, "pixels")["gaussian_noise", 40]
    assert names(out) == sorted([*(f"gaussian_noise/40/{n}.jpg" for n in range(1, 11)), "index.csv"])
    for n, (index, _, _) in enumerate(images_of_test(made), start=1):
        form, read = pixels(out / "gaussian_noise" / "40" / f"{n}.jpg")
        assert form == "JPEG"
        np.testing.assert_array_equal(read, through_jpeg(stored[index]))
        assert not np.array_equal(read, stored[index])


def test_the_index_names_the_source_and_label_of_every_file(made, out):
    exported(made, "distorted-dataset", "1", "--out", out, "--kind", "pristine")
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["n", "path", "label"]
    expected = [
        [str(n), path, str(label)] for n, (_, path, label) in enumerate(images_of_test(made), start=1)
    ]
    assert rows[1:] == expected
    assert len(expected) == 10


def test_spectra_are_scaled_by_the_largest_value_there_can_be(made, out):
    exported(made, "spectra", "--out", out, "--format", "png")  # the newest run: 2
    stored = artifacts(made, 2, "spectra")
    assert set(stored) == set(CONDITIONS)
    assert len(names(out)) == 50 + 1
    for kind, level in CONDITIONS:
        for n, (index, _, _) in enumerate(images_of_test(made), start=1):
            _, read = pixels(out / kind / str(level) / f"{n}.png")
            value = stored[kind, level][index].astype(np.float64)
            np.testing.assert_array_equal(read, np.rint(value / np.log(1 + 255 * SIZE**2) * 255))
            assert read.argmax() == 16 * SIZE + 16  # zero frequency in the middle


def test_what_another_run_has_made_counts(made, out):
    exported(made, "distorted-dataset", "2", "--out", out, "--level", "0")
    assert len(names(out)) == 10 + 1


def test_a_run_that_did_not_plan_it_says_what_to_submit(made, out):
    make = "Compute it with the same options: orchestrator submit spectra"
    assert refused(made, "spectra", "1", "--out", out) == f"run 1 has no spectra in its plan. {make}"
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["distorted-datset"], "unknown export 'distorted-datset'. Did you mean 'distorted-dataset'?"),
        (["spectra", "--format", "gif"], "unknown format 'gif'. Known: jpg, png."),
        (["spectra", "--seed", "7"], "run 2 has no seed 7. It has: 0."),
        (["spectra", "--fidelity", "released"], "run 2 has no fidelity released-spectra. It has: corrected."),
        (
            ["distorted-dataset", "--kind", "gaussian_blur", "--level", "2"],
            "run 2 has no such kind and level. It has: pristine 0, gaussian_blur 1, gaussian_blur 3, "
            "gaussian_noise 10, gaussian_noise 40.",
        ),
        (["spectra", "9"], "no run 9. `orchestrator status` lists all runs, up to 2."),
    ],
)
def test_what_cannot_be_chosen_is_answered_with_what_can(made, out, options, why):
    assert refused(made, *options, "--out", out) == why
    assert not out.exists()


def test_a_folder_that_holds_something_is_refused_and_an_empty_one_is_filled(made, out):
    out.mkdir()
    (out / "mine").touch()
    why = f"'{out}': the folder is not empty. Name a new or empty one."
    assert refused(made, "spectra", "--out", out) == why
    assert names(out) == ["mine"]
    (out / "mine").unlink()
    exported(made, "spectra", "--out", out, "--kind", "pristine")
    assert len(names(out)) == 10 + 1


@pytest.fixture
def variants(home, small):
    """The home of one run with two seeds and two kinds of spectra."""
    fields = {"seeds": [0, 1], "fidelity": '["corrected", "released-spectra"]'}
    output = home.command("submit", "spectra", "--in-process", *small(fields))
    assert output.returncode == 0, output.stderr
    return home


def test_a_run_of_several_seeds_and_fidelities_is_asked_which(variants, out, tmp_path):
    assert refused(variants, "spectra", "--out", out) == (
        "run 1 has more than one seed: 0, 1. Choose with --seed."
    )
    assert refused(variants, "spectra", "--seed", "1", "--out", out) == (
        "run 1 has more than one fidelity: corrected, released-spectra. Choose with --fidelity."
    )
    noise = ("--format", "png", "--kind", "gaussian_noise", "--level", "40")
    read = {}
    for seed in ("0", "1"):
        for fidelity in ("corrected", "released-spectra"):
            folder = tmp_path / f"{seed}-{fidelity}"
            exported(variants, "spectra", *noise, "--seed", seed, "--fidelity", fidelity, "--out", folder)
            read[seed, fidelity] = pixels(folder / "gaussian_noise" / "40" / "1.png")[1].tobytes()
    assert len(set(read.values())) == 4


@pytest.mark.parametrize(
    ("kind", "level", "label"),
    [("gaussian_blur", "3", "gaussian_blur 3, %"), ("pristine", "0", "test %")],
)
def test_a_lost_file_is_named_and_a_submit_makes_it_again(variants, small, out, tmp_path, kind, level, label):
    asked = ("distorted-dataset", "--seed", "0", "--kind", kind, "--level", level, "--format", "png")
    exported(variants, *asked, "--out", tmp_path / "before")
    statement = (
        "SELECT a.uri FROM jobs j JOIN artifacts a ON a.id = j.artifact_id"
        " WHERE j.stage IN ('distort', 'prepare') AND j.label LIKE ? ORDER BY j.id DESC"
    )
    uri = variants.value(statement, label)
    (variants.path / "artifacts" / uri).unlink()
    lost = variants.command("export", *asked, "--out", out)
    assert lost.returncode == 1
    assert lost.stderr == (
        f"error: artifact {uri} is missing. It was set aside. "
        "Recompute it with the same options: orchestrator submit distorted-dataset\n"
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "before"]
    assert refused(variants, *asked, "--out", out) == (
        "distorted-dataset of run 1: 1 of 2 files were not needed or are not computed yet. "
        "Compute it with the same options: orchestrator submit distorted-dataset"
    )
    again = variants.command("submit", "distorted-dataset", "--in-process", *small({"seeds": [0, 1]}))
    assert again.returncode == 0, again.stderr
    assert ", 1 to run." in again.stdout
    exported(variants, *asked, "--out", out)
    for path in sorted((tmp_path / "before").rglob("*.png")):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "before")).read_bytes()
