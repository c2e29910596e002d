"""Bad input gets one clear line and exit code 2, and nothing half done."""

import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from early_exit.synthetic import draw
from early_exit.weights import expected_shapes


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A dataset that is right: ten classes of ten images."""
    folder = tmp_path_factory.mktemp("drawn") / "images"
    draw(folder, 100, 24, 0)
    return folder


@pytest.fixture
def photographs(drawn, tmp_path):
    """A copy of it that a test may break."""
    return shutil.copytree(drawn, tmp_path / "photographs")


def submitting(*options):
    return ("submit", "full-paper", *options)


def refused(home, *arguments):
    """What ``orchestrator`` prints when it refuses; the message without ``error: ``."""
    done = home.command(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.endswith("\n")
    assert "Traceback" not in done.stderr
    assert not home.value("SELECT COUNT(*) FROM runs")
    return done.stderr.removeprefix("error: ").removesuffix("\n")


def refused_in_one_line(home, *arguments):
    message = refused(home, *arguments)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit", "ful-paper"), "unknown plan 'ful-paper'. Did you mean 'full-paper'?"),
        (submitting("--profile", "dmo"), "unknown profile 'dmo'. Did you mean 'demo'?"),
        (submitting("--set", "p_tarr=0.9"), "unknown field 'p_tarr'. Did you mean 'p_tar'?"),
        (submitting("--set", "expert.epoch=3"), "unknown field 'expert.epoch'. Did you mean 'epochs'?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_one(home, arguments, message):
    assert refused_in_one_line(home, *arguments) == message


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("p_tar=0.805", "field 'p_tar': must be one of the 101 thresholds 0.00, 0.01 … 1.00, got 0.805."),
        ("views=3", "field 'views': must be even: half of the views are distorted, got 3."),
        (
            "synthetic.images=205",
            "field 'synthetic': images must be a multiple of 10.",
        ),
        ("p_tar", "--set 'p_tar': expected FIELD=VALUE, as in --set p_tar=0.9."),
    ],
)
def test_a_value_that_cannot_be_is_answered_with_what_can(home, setting, message):
    assert refused_in_one_line(home, *submitting("--set", setting)) == message


def missing(folder: Path):
    shutil.rmtree(folder)


def empty(folder: Path):
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(folder: Path):
    shutil.rmtree(folder)
    folder.write_text("no folder")


def with_an_empty_class(folder: Path):
    (folder / "Empty").mkdir()


def with_too_few_of_two_classes(folder: Path):
    for path in [*sorted((folder / "A").iterdir())[7:], *sorted((folder / "3").iterdir())[9:]]:
        path.unlink()


@pytest.mark.parametrize(
    ("breaking", "reason", "counts"),
    [
        (missing, "there is no such folder", []),
        (empty, "it is empty", []),
        (a_file, "it is not a folder", []),
        (with_an_empty_class, "1 of 11 classes have too few images", ["Empty: 0 images"]),
        (with_too_few_of_two_classes, "2 of 10 classes have too few images", ["3: 9 images", "A: 7 images"]),
    ],
)
def test_a_dataset_that_cannot_be_split_is_refused_with_the_counts(
    home, photographs, breaking, reason, counts
):
    breaking(photographs)
    message = refused(home, *submitting("--dataset", photographs, "--set", "backbone.epochs=1"))
    first, *listed = message.splitlines()
    assert first.startswith(f"dataset '{photographs}': ")
    assert reason in first
    assert listed == counts


@pytest.mark.parametrize("breaking", [missing, empty, a_file])
def test_a_folder_is_looked_at_before_weights_are_downloaded(home, photographs, breaking):
    breaking(photographs)
    nobody = {"https_proxy": "http://127.0.0.1:1"}  # a download would fail
    done = home.command(*submitting("--dataset", photographs, "--weights", "imagenet"), **nobody)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: dataset '{photographs}': ")


def test_all_images_that_do_not_decode_whole_are_listed(home, photographs):
    from PIL import Image

    whole = photographs / "A" / "0000.png"
    image = Image.open(whole).resize((90, 90))
    image.save(photographs / "A" / "cut.jpg")
    for path in (photographs / "A" / "cut.jpg", photographs / "3" / "0004.png"):
        path.write_bytes(path.read_bytes()[:-60])
    (photographs / "8" / "0001.png").write_bytes(b"")
    message = refused(home, *submitting("--dataset", photographs, "--set", "backbone.epochs=1"))
    first, *files = message.splitlines()
    assert "3 of its files" in first
    assert sorted(line.partition(": ")[0] for line in files) == ["3/0004.png", "8/0001.png", "A/cut.jpg"]
    assert all(line.partition(": ")[2] for line in files)


def mobilenet():
    tensors = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(1.0).items()}
    counted = {name: np.zeros((), np.int64) for name in tensors if name.endswith("num_batches_tracked")}
    return tensors | counted


def no_file(path: Path):
    pass


def pickled(path: Path):
    path.write_bytes(pickle.dumps({"features.0.0.weight": [0.0]}))


def of_another_architecture(path: Path):
    save_file({"layer1.0.conv1.weight": np.zeros((64, 64, 3, 3), np.float32)}, path)


def of_another_shape(path: Path):
    save_file(mobilenet() | {"features.0.0.weight": np.zeros((32, 3, 5, 5), np.float32)}, path)


def without_a_tensor(path: Path):
    save_file({name: array for name, array in mobilenet().items() if name != "features.18.0.weight"}, path)


def with_nan(path: Path):
    save_file(mobilenet() | {"features.0.1.bias": np.full(32, np.nan, np.float32)}, path)


@pytest.mark.parametrize(
    ("making", "named"),
    [
        (no_file, "No such file or directory"),
        (pickled, "a pickled torch file, which could run code"),
        (of_another_architecture, "no tensor is named features.*"),
        (
            of_another_shape,
            "'features.0.0.weight' is (32, 3, 5, 5), but mobilenet_v2 of width 1 has (32, 3, 3, 3)",
        ),
        (without_a_tensor, "tensor 'features.18.0.weight' is missing"),
        (with_nan, "'features.0.1.bias' holds a value that is not finite"),
    ],
)
def test_weights_that_are_not_a_mobilenets_are_refused(home, drawn, tmp_path, making, named):
    weights = tmp_path / "weights.safetensors"
    making(weights)
    message = refused_in_one_line(home, *submitting("--dataset", drawn, "--weights", weights))
    assert message.startswith("weights")
    assert named in message


def test_photographs_without_weights_are_refused_and_so_are_weights_without_photographs(home, drawn):
    message = refused_in_one_line(home, *submitting("--dataset", drawn))
    assert "Add --weights FILE.safetensors" in message
    beside = ("--profile", "paper", "--set", 'fidelity=["corrected", "frozen-backbone"]')
    message = refused_in_one_line(home, *submitting("--dataset", drawn, *beside))
    assert message.startswith("fidelity 'frozen-backbone' needs pretrained weights. Add --weights")
    message = refused_in_one_line(home, *submitting("--profile", "photos"))
    assert message == "profile 'photos' needs photographs. Add --dataset DIR."


@pytest.fixture
def database(home):
    """Where the home's database lies; there is none yet."""
    home.path.mkdir()
    return home.path / "orchestrator.db"


@pytest.mark.parametrize("arguments", [submitting(), ("results",), ("sql", "select 1")])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(home, database, arguments):
    database.write_bytes(b"no database " * 100)
    done = home.command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: database 'sqlite:///{database}': file is not a database.\n"
    assert database.read_bytes() == b"no database " * 100


@pytest.mark.parametrize("arguments", [submitting(), ("resume",)])
def test_a_database_newer_than_the_code_is_refused(home, database, sqlite_template, arguments):
    shutil.copy(sqlite_template, database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    message = refused_in_one_line(home, *arguments)
    assert "schema 9999 is none of this code's" in message
    assert message.endswith("Upgrade the orchestrator, or name another database.")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sql", "DELETE FROM runs"), "the console only reads"),
        (("status", "7"), "no runs yet"),
        (("worker", "--queues", "cpus"), "unknown queue 'cpus'. Did you mean 'cpu'?"),
    ],
)
def test_commands_on_a_home_without_runs_say_what_is_wrong(home, database, sqlite_template, arguments, named):
    shutil.copy(sqlite_template, database)
    assert named in refused_in_one_line(home, *arguments)


def test_a_reconciler_of_a_private_cluster_is_refused_and_nothing_is_made(home):
    assert refused_in_one_line(home, "reconcile") == (
        "a private cluster runs its own reconciler; that of a shared one needs ORCHESTRATOR_BROKER_URL, "
        "ORCHESTRATOR_DATABASE_URL and ORCHESTRATOR_ARTIFACTS_URL."
    )
    assert not home.path.exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--set", "p_tar=0.805"), "UsageError"),
        (("--dataset", "/no/folder", "--set", "backbone.epochs=1"), "DatasetError"),
        (("--dataset", Path(__file__).parents[1], "--weights", "/no/file"), "WeightsError"),
    ],
)
def test_debug_shows_the_traceback(home, options, error):
    done = home.command("--debug", *submitting(*options))
    assert done.returncode != 0
    assert done.stderr.startswith("Traceback")
    assert error in done.stderr.splitlines()[-1]
