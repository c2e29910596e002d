"""A split file decides where each image belongs, whatever the seed says."""

import csv
import hashlib
import json

import pytest

SUBMIT = ("submit", "distorted-dataset", "--in-process")


@pytest.fixture(scope="module")
def seeded(new_home, small):
    """The home of a run on the synthetic dataset, split by its seed."""
    home = new_home()
    output = home.command(*SUBMIT, *small())
    assert output.returncode == 0, output.stderr
    return home


@pytest.fixture
def split_file(seeded, tmp_path):
    """The split of that run as the SQL console prints it."""
    statement = "select path, split from images where dataset_id = 1"
    printed = seeded.command("sql", statement, "--format", "csv")
    assert printed.returncode == 0, printed.stderr
    (tmp_path / "split.csv").write_text(printed.stdout)
    return tmp_path / "split.csv"


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.reader(opened))


def rewrite(file, rows):
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)


def test_a_stored_split_given_back_under_another_seed_finds_everything(seeded, small, split_file):
    again = seeded.command(*SUBMIT, "--split", split_file, *small({"split_seed": 5}))
    assert again.returncode == 0, again.stderr
    assert ", 0 to run." in again.stdout
    other = seeded.command(*SUBMIT, "--dry-run", *small({"split_seed": 5}))
    assert other.stdout.rstrip().splitlines()[-2].split()[-2] != "0", other.stdout


def test_a_changed_split_is_the_one_that_is_stored_and_tested(seeded, small, split_file):
    header, *rows = rows_of(split_file)
    turned = {"train": "train", "validation": "test", "test": "validation"}
    expected = {path: turned[split] for path, split in rows}
    rewrite(split_file, [header, *reversed(expected.items())])
    output = seeded.command(*SUBMIT, "--split", split_file, *small())
    assert output.returncode == 0, output.stderr
    newest = "(SELECT MAX(id) FROM runs)"
    stored = f"SELECT path, split FROM images JOIN runs USING (dataset_id) WHERE runs.id = {newest}"  # noqa: S608  # ours
    assert dict(seeded.rows(stored)) == expected
    spec = json.loads(seeded.value(f"SELECT spec FROM runs WHERE id = {newest}"))  # noqa: S608  # ours
    assert spec["split_file"] == hashlib.sha256(split_file.read_bytes()).hexdigest()


@pytest.mark.parametrize("change", ["left out", "named twice", "unknown"])
def test_a_file_that_does_not_name_every_image_once_is_refused_in_one_line(seeded, small, split_file, change):
    header, first, *rest = rows_of(split_file)
    changed = {
        "left out": (rest, f"1 images are not in the split file: {first[0]}."),
        "named twice": ([first, first, *rest], f"line 3 names '{first[0]}' again."),
        "unknown": (
            [first, *rest, ["Z/1.png", "test"]],
            "1 paths in the split file are not images of the dataset: Z/1.png.",
        ),
    }
    rows, why = changed[change]
    rewrite(split_file, [header, *rows])
    before = seeded.value("SELECT COUNT(*) FROM runs")
    refused = seeded.command(*SUBMIT, "--split", split_file, *small())
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert seeded.value("SELECT COUNT(*) FROM runs") == before


def test_the_field_is_not_set_by_hand(seeded, small):
    refused = seeded.command(*SUBMIT, *small({"split_file": "split.csv"}))
    assert refused.returncode == 2
    assert refused.stderr == "error: field 'split_file': give a file with --split FILE.csv.\n"
