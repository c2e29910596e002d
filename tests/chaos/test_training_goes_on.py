"""A long training: killed after every epoch it ends all the same, and a damaged checkpoint changes no number."""

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from harness.operations import TRAINING
from harness.oracle import numbers
from harness.steps import Server
from sqlalchemy import insert, select

from db.artifacts import DIGEST_BYTES, ArtifactStore
from db.engine import open_engine, reading, write
from db.limits import MAX_LOSSES
from db.models import Artifact, Attempt, Dataset, Job, JobDependency, JobState, Run
from early_exit.settings import Training
from tasks.code import code_of
from tasks.params import TrainExpert

EPOCHS = 2 * MAX_LOSSES
CLASSES, WIDTHS = 3, (4, 5, 6, 7)
RUN = 1
KEY = "training"


@pytest.fixture(scope="module")
def server():
    """A warm process that has torch."""
    with Server("tasks.stages.train_expert") as server:
        yield server


@pytest.fixture(scope="module")
def template(tmp_path_factory, sqlite_template):
    """A folder with a run of one training, whose two inputs are there."""
    folder = tmp_path_factory.mktemp("training") / "template"
    store = ArtifactStore(str(folder / "artifacts"))
    shutil.copy(sqlite_template, folder / "database.sqlite")
    engine = open_engine(f"sqlite:///{folder / 'database.sqlite'}")
    rng = np.random.default_rng(1)
    files = {split: store.write(vectors(rng, images), "1.1") for split, images in SPLITS.items()}
    write(engine, lambda session: _store(session, files))
    engine.dispose()
    return folder


SPLITS = {"train": 60, "validation": 30}


def vectors(rng, images):
    """What the stage ``features`` leaves: vectors of four exits that tell the classes apart, more or less."""
    labels = rng.integers(CLASSES, size=images)
    exits = {
        f"exit_{k}": (rng.normal(size=(images, width)) + labels[:, None]).astype(np.float32)
        for k, width in enumerate(WIDTHS, start=1)
    }
    return exits | {"labels": labels, "images": np.arange(images)}


def _store(session, files):
    dataset = Dataset(digest="d", uri="file:///d", classes=["x"], ignored_files=0, built_in=False)
    session.add(dataset)
    session.flush()
    run = {"identity": "i", "plan": "p", "profile": "p", "spec": {}, "code_version": "1", "environment": {}}
    session.execute(insert(Run).values(id=RUN, dataset_id=dataset.id, created_at=1.7e9, **run))
    common = {"run_id": RUN, "queue": "cpu", "deadline_seconds": 600}
    for number, (split, file) in enumerate(files.items(), start=1):
        made = {
            "key": split,
            "stage": "features",
            "uri": file.uri,
            "sha256": file.sha256,
            "bytes": file.bytes,
        }
        session.execute(insert(Artifact).values(id=number, created_at=1.7e9, **made))
        done = {"stage": "features", "label": split, "key": split, "state": JobState.SUCCEEDED, "code": ""}
        params = {"split": split, "kind": "pristine", "view": 0}
        session.execute(insert(Job).values(id=number, artifact_id=number, params=params, **done, **common))
    settings = Training(epochs=EPOCHS, batch_size=8, learning_rate=0.01, patience=EPOCHS)
    training = TrainExpert("pristine", (), CLASSES, 1, settings, fixed_order=False, seed=0)
    ready = {"stage": "train-expert", "label": "pristine", "key": KEY, "state": JobState.READY}
    code = code_of("train-expert")
    session.execute(insert(Job).values(id=TRAINING, code=code, params=asdict(training), **ready, **common))
    edges = [{"child_id": TRAINING, "parent_id": k, "position": k, "reads": True} for k in (1, 2)]
    session.execute(insert(JobDependency), edges)


class Place:
    """A copy of the template in a folder of its own."""

    def __init__(self, template):
        self.folder = Path(tempfile.mkdtemp(dir=template.parent))
        shutil.copytree(template, self.folder, dirs_exist_ok=True)
        self.engine = open_engine(f"sqlite:///{self.folder / 'database.sqlite'}")

    def job(self):
        """The training's row."""
        with reading(self.engine) as session:
            return session.get_one(Job, TRAINING)

    def outcomes(self):
        """How its attempts ended."""
        with reading(self.engine) as session:
            return list(session.scalars(select(Attempt.outcome).order_by(Attempt.attempt)))


@pytest.fixture
def new_place(template):
    """``new_place()`` is a copy of the template."""
    places = []

    def new():
        places.append(Place(template))
        return places[-1]

    yield new
    for place in places:
        place.engine.dispose()


@pytest.fixture
def undisturbed(server, new_place):
    """The numbers of a training that nothing happened to."""
    place = new_place()
    assert server.do("train", place.folder).status == 0
    assert place.job().state == JobState.SUCCEEDED
    return numbers(place.engine, RUN)


def live(server, place, operation):
    """One worker after another, until the training has ended; returns how many."""
    lives = 0
    while place.job().state not in (JobState.SUCCEEDED, JobState.FAILED):
        server.do(operation, place.folder, at=lives)
        lives += 1
    return lives


def test_a_training_killed_once_per_epoch_ends_with_the_numbers_of_an_undisturbed_one(
    server, new_place, undisturbed, say
):
    place = new_place()
    lives = live(server, place, "train an epoch")
    assert place.job().state == JobState.SUCCEEDED
    assert lives == EPOCHS + 1
    assert place.outcomes() == ["lost"] * EPOCHS + ["succeeded"]
    assert numbers(place.engine, RUN) == undisturbed
    say(f"training of {EPOCHS} epochs: killed {EPOCHS} times, of {MAX_LOSSES} losses in a row, same numbers")


def test_losses_that_no_progress_resets_end_it(server, new_place):
    place = new_place()
    live(server, place, "train an epoch in vain")
    assert place.job().state == JobState.FAILED
    assert place.job().error.startswith(f"lost its worker {MAX_LOSSES} times")


def flip_a_high_bit(path):
    """Of the exponent of the model's last weight: a number that stays finite and is another one."""
    content = bytearray(path.read_bytes())
    content[-DIGEST_BYTES - 1] ^= 0x10
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damaged(server, place, damage):
    """The checkpoint of an epoch, after which the worker was killed, is damaged."""
    server.do("train an epoch", place.folder)
    (checkpoint,) = (place.folder / "artifacts" / "checkpoints").iterdir()
    damage(checkpoint)


@pytest.mark.parametrize("damage", [truncate, flip_a_high_bit])
def test_a_damaged_checkpoint_starts_the_training_anew(server, new_place, undisturbed, damage):
    place = new_place()
    damaged(server, place, damage)
    assert server.do("train", place.folder, at=1).status == 0
    assert place.job().state == JobState.SUCCEEDED
    assert numbers(place.engine, RUN) == undisturbed


def test_without_its_digest_a_damaged_checkpoint_changes_the_numbers(server, new_place, undisturbed):
    place = new_place()
    damaged(server, place, flip_a_high_bit)
    assert server.do("train unchecked", place.folder, at=1).status == 0
    assert place.job().state == JobState.SUCCEEDED
    assert numbers(place.engine, RUN) != undisturbed
