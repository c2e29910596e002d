"""A cache must not lie: what each stage computes on a tiny input, by the version that its keys carry.

``golden.json`` holds stage → version → output: the SHA-256 of what is computed in integers, and shape, mean,
root mean square and a projection of every array where floats are, compared with a tolerance. When an output
changes on purpose, bump ``version`` of its stage in ``tasks.params`` and add what this test prints; an entry
that is there is never changed.
"""

import hashlib
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

import db.results.tables  # noqa: F401  # the tables of results belong to the models
from db.artifacts import ArtifactStore
from db.engine import open_engine, write
from db.jobs import Claim, JobInput
from db.models import Dataset, Image, Job, Run
from early_exit.classifier import DistortionNet
from early_exit.network import Backbone, Heads, to_arrays
from early_exit.settings import Architecture, BackboneTraining, Measurement, Training
from early_exit.vocabulary import PAYLOADS
from tasks.job_io import JobContext
from tasks.params import (
    STAGES,
    AdaptExpert,
    Classify,
    Deadlines,
    Distort,
    Features,
    Latency,
    Measure,
    Outage,
    PayloadAccuracy,
    Predict,
    Prepare,
    Reliability,
    Spectra,
    Sweep,
    TrainBackbone,
    TrainClassifier,
    TrainExpert,
)

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
CLASSES = 4
KINDS = ("gaussian_blur", "gaussian_noise", "pristine")
EXPERTS = ("pristine", "gaussian_blur", "gaussian_noise")
NARROW = Architecture(width=0.1, stem_stride=1)
OTHERS = (Architecture(backbone="resnet18"), Architecture(width=0.1, backbone="mobilenet_v3_large"))
TRAINING = Training(epochs=2, batch_size=4, learning_rate=0.01, weight_decay=0.01, schedule="cosine")
EXACT = ("prepare", "distort", "sweep")
TOLERANCE, TRAINED_TOLERANCE = 1e-3, 2e-2
"""Relative. Two CPUs add in different orders, and Adam's first steps follow no more than a gradient's sign."""


def rng(number):
    return np.random.default_rng([2108, 9343, number])


def images(count, number=0):
    return {
        "pixels": rng(number).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "labels": np.arange(count) % CLASSES,
        "images": np.arange(100, 100 + count),
    }


def like(module, number=1):
    """Arrays of a network's shapes: small numbers as weights, ones as variances."""
    generator = rng(number)
    arrays = {name: generator.normal(0, 0.2, array.shape) for name, array in to_arrays(module).items()}
    return {
        name: np.zeros((), np.int64)
        if name.endswith("num_batches_tracked")
        else (np.ones_like(array) if name.endswith("running_var") else array).astype(np.float32)
        for name, array in arrays.items()
    }


def backbone(architecture=NARROW):
    return like(Backbone(architecture))


def expert():
    sizes = Backbone(NARROW).pooled_sizes
    heads = {f"heads.{name}": array for name, array in like(Heads(sizes, CLASSES)).items()}
    return heads | {"temperatures": np.array([0.5, 1.0, 1.5, 2.0])}


def vectors(count, number):
    """Noisy vectors with a trace of their labels, so that temperatures have one best value."""
    sizes = Backbone(NARROW).pooled_sizes
    labels = np.arange(count) % CLASSES
    drawn = {}
    for k, size in enumerate(sizes, 1):
        trace = np.arange(size) % CLASSES == labels[:, np.newaxis]
        drawn[f"exit_{k}"] = (rng(number + k).random((count, size)) + 0.1 * trace).astype(np.float32)
    return drawn | {"labels": labels, "images": np.arange(count)}


def spectra(count, number):
    drawn = rng(number).random((count, 32, 32)).astype(np.float16)
    return {"spectra": drawn, "images": np.arange(count)}


def answers(number, count=40):
    generator = rng(number)
    return {
        "logits": rng(10 + number).normal(size=(count, 4, CLASSES)).astype(np.float32),
        "confidence": np.sqrt(generator.random((count, 4))),
        "predicted": generator.integers(0, CLASSES, (count, 4)),
        "labels": np.arange(count) % CLASSES,
        "images": np.arange(count),
    }


SEEN = {"predicted": rng(3).integers(0, len(KINDS), 40), "images": np.arange(40)}
EVERY_EXPERT = [("predict", {"expert": expert}, answers(number)) for number, expert in enumerate(EXPERTS)]
SECONDS = {
    **{name: np.array([0.001 * place]) for place, name in enumerate(("stage_1", "stage_2", "stage_3"), 1)},
    **{"classifier": np.array([0.002]), "cloud": np.array([0.004])},
    **{f"{what}_{form}": np.array([0.0005]) for what in ("encode", "decode") for form in PAYLOADS},
    **{"json_bytes": np.array([90_000]), "float32_bytes": np.array([20_000])},
    **{"float16_bytes": np.array([10_000]), "uint8_bytes": np.array([5_008])},
    **{"whole": np.array([0.009]), "image_bytes": np.array([12_288])},
}


def cases():
    """By stage: (parameters, inputs as (stage, parameters, arrays)) of each call."""
    tested = ("prepare", {"split": "test"}, images(4))
    learned = [("prepare", {"split": s}, images(n, n)) for s, n in (("train", 8), ("validation", 4))]
    trained = ("train-backbone", {"backbone_version": 1}, backbone())
    seen = [
        ("spectra", {"split": split, "kind": kind}, spectra(count, 10 * number + count))
        for split, count in (("train", 4), ("validation", 2))
        for number, kind in enumerate(KINDS)
    ]

    def views(split, kind, count, number):
        return ("features", {"split": split, "kind": kind, "view": 0}, vectors(count, number))

    undistorted, held_out = views("train", "pristine", 12, 12), views("validation", "pristine", 8, 8)
    noise = [views("train", "gaussian_noise", 12, 24), views("validation", "gaussian_noise", 8, 8)]
    blur = [views("train", "gaussian_blur", 12, 36), views("validation", "gaussian_blur", 8, 16)]
    classifier = ("train-classifier", {}, like(DistortionNet(32)))
    mine = ("train-expert", {}, expert())
    return {
        "prepare": [(Prepare("d", "test", 1, 3, 32, "margin"), [])],
        "distort": [
            (Distort("gaussian_blur", 1, 2, None), [tested]),
            (Distort("gaussian_noise", 1, 30, 5), [tested]),
        ],
        "distort, more kinds": [
            (Distort("gaussian_noise_clipped", 1, 30, 5), [tested]),
            (Distort("motion_blur", 1, 9, None), [tested]),
            (Distort("jpeg", 1, 80, None), [tested]),
        ],
        "spectra": [
            (Spectra("test", "pristine", 0, (0,), 32, "ours", None), [tested]),
            (Spectra("train", "gaussian_noise", 1, (10, 40), 24, "ours", 5), [tested]),
        ],
        "train-classifier": [(TrainClassifier(KINDS, 32, TRAINING, 5, "cpu", 1), seen)],
        "classify": [(Classify(KINDS, "pristine", 0, 32), [("spectra", {}, spectra(6, 9)), classifier])],
        "train-backbone": [
            (
                TrainBackbone(
                    CLASSES, NARROW, None, True, BackboneTraining(**vars(TRAINING)), 5, "cpu", 1, 1
                ),
                learned,
            ),
        ],
        "features": [
            (
                Features("test", "pristine", 0, (0,), 0.0, 0, False, NARROW, None, "cpu"),
                [tested, trained],
            ),
            (
                Features("train", "gaussian_blur", 1, (1, 3), 0.5, 1, True, NARROW, 5, "cpu"),
                [tested, trained],
            ),
        ],
        "features, other backbones": [
            (
                Features("test", "pristine", 0, (0,), 0.0, 0, False, other, None, "cpu"),
                [tested, ("train-backbone", {"backbone_version": 1}, backbone(other))],
            )
            for other in OTHERS
        ],
        "train-expert": [
            (TrainExpert("pristine", (), CLASSES, 1, TRAINING, False, 5), [undistorted, held_out]),
            (
                TrainExpert("gaussian_noise", ("gaussian_noise",), CLASSES, 1, TRAINING, False, 5),
                [undistorted, *noise, mine],
            ),
        ],
        "adapt-expert": [
            (
                AdaptExpert(
                    *("gaussian_noise", ("gaussian_noise",), (1,), ((10, 40),), CLASSES, NARROW, True),
                    *(TRAINING, 0.0, True, 5, "cpu", 1, 1),
                ),
                [*learned, trained, mine],
            )
        ],
        "adapt-expert, all layers of a generalist": [
            (
                AdaptExpert(
                    *(
                        "any",
                        ("gaussian_noise", "gaussian_blur"),
                        (1, 1),
                        ((10, 40), (2,)),
                        CLASSES,
                        NARROW,
                    ),
                    *(True, TRAINING, 1e-4, True, 5, "cpu", 1, 1),
                ),
                [*learned, trained, mine],
            )
        ],
        "prepare, released": [
            (Prepare("d", "test", 0, 3, 32, "plain"), []),
            (Prepare("d", "test", 0, 3, 32, "squash"), []),
        ],
        "spectra, released": [
            (Spectra("test", "pristine", 0, (0,), 24, "released-edge", None), [tested]),
            (Spectra("train", "gaussian_blur", 1, (1, 3), 32, "released-training", 5), [tested]),
        ],
        "train-expert, fixed order": [
            (TrainExpert("pristine", (), CLASSES, 1, TRAINING, True, 5), [undistorted, held_out])
        ],
        "train-expert, generalist": [
            (
                TrainExpert(
                    *("generalist", ("gaussian_blur", "gaussian_noise"), CLASSES, 1, TRAINING, False, 5)
                ),
                [undistorted, *noise, *blur, mine],
            )
        ],
        "sweep, baselines": [
            (
                Sweep("edge-only", "gaussian_blur", 2),
                [*EVERY_EXPERT, ("classify", {"kinds": KINDS}, SEEN)],
            ),
            (Sweep("cloud-only", "gaussian_blur", 2), EVERY_EXPERT[:1]),
        ],
        "latency, baselines": [
            (
                Latency("edge-only", "gaussian_blur", 2, 0.8),
                [("measure", {}, SECONDS), *EVERY_EXPERT, ("classify", {"kinds": KINDS}, SEEN)],
            ),
            (
                Latency("cloud-only", "gaussian_blur", 2, 0.8),
                [("measure", {}, SECONDS), EVERY_EXPERT[0]],
            ),
        ],
        "predict": [(Predict("pristine", "gaussian_blur", 2), [("features", {}, vectors(6, 6)), mine])],
        "sweep": [
            (Sweep("pristine", "gaussian_blur", 2), EVERY_EXPERT[:1]),
            (Sweep("classifier", "gaussian_blur", 2), [*EVERY_EXPERT, ("classify", {"kinds": KINDS}, SEEN)]),
        ],
        "measure": [
            (
                Measure(NARROW, CLASSES, 32, False, Measurement(0, 1), "cpu", "x"),
                [tested, trained, classifier, mine],
            )
        ],
        "reliability": [(Reliability("pristine", "gaussian_blur", 2), EVERY_EXPERT[:1])],
        "outage": [(Outage("oracle", "gaussian_blur", 2, 5), EVERY_EXPERT[1:2])],
        "payload-accuracy": [
            (PayloadAccuracy("pristine", "pristine", 0, NARROW, "cpu"), [tested, trained, mine])
        ],
        "latency": [
            (
                Latency("classifier", "gaussian_blur", 2, 0.8),
                [("measure", {}, SECONDS), *EVERY_EXPERT, ("classify", {"kinds": KINDS}, SEEN)],
            )
        ],
        "deadlines": [
            (
                Deadlines("classifier", "gaussian_blur", 2, 0.3, "uint8", 5),
                [("measure", {}, SECONDS), *EVERY_EXPERT, ("classify", {"kinds": KINDS}, SEEN)],
            )
        ],
    }


@pytest.fixture
def engine(sqlite_template, tmp_path):
    """A database of run 1, its running job 1, and its dataset of four synthetic images."""
    shutil.copy(sqlite_template, tmp_path / "database.sqlite")
    engine = open_engine(f"sqlite:///{tmp_path / 'database.sqlite'}")
    images = []
    for index, (height, width) in enumerate([(40, 40), (35, 60), (64, 33), (50, 50)]):
        path = tmp_path / f"{index}.png"
        PilImage.fromarray(rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        images.append((index, path))

    def insert(session):
        dataset = Dataset(digest="d", uri=str(tmp_path), classes=["x"], ignored_files=0, built_in=False)
        session.add(dataset)
        session.flush()
        run = {"identity": "i", "plan": "full-paper", "profile": "photos", "spec": {}, "code_version": "1"}
        session.add(Run(**run, environment={}, dataset_id=dataset.id, created_at=0.0))
        session.flush()
        for index, path in images:
            content = path.read_bytes()
            facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "mtime_ns": 0}
            place = {"dataset_id": dataset.id, "index": index, "path": path.name, "label": 0, "split": "test"}
            session.add(Image(**place, **facts))
        job = {"stage": "any", "label": "", "key": "k", "code": "", "params": {}, "queue": "cpu"}
        held = {"state": "running", "attempt": 1, "token": 0, "lease_until": 1e10, "deadline_seconds": 600}
        session.add(Job(id=1, run_id=1, **job, **held))

    write(engine, insert)
    return engine


@pytest.fixture
def compute(engine, tmp_path):
    """``compute(stage)``: the outputs of a stage's calls."""
    store = ArtifactStore(str(tmp_path / "artifacts"))

    def one(params, inputs):
        sources = []
        for number, (stage, of, arrays) in enumerate(inputs):
            file = store.write(arrays, f"1.{number}")
            sources.append(JobInput(number, stage, of, number, file.uri, file.sha256))
        claim = Claim(
            *(1, 1, 1, 0, params.stage, params.queue, "", "", f"key-{params.stage}", {}),
            alone=False,
            inputs=tuple(sources),
        )
        module = importlib.import_module(f"tasks.stages.{params.stage.replace('-', '_')}")
        context = JobContext(claim, engine, store)
        output = module.compute(params, context)
        context.checkpoint.delete()
        return output

    return lambda case: [one(params, inputs) for params, inputs in cases()[case]]


def columns(outputs):
    """Every array and every column of rows, by name."""
    found = {}
    for call, output in enumerate(outputs):
        for name, array in (output.tensors or {}).items():
            found[f"{call}: {name}"] = np.asarray(array)
        for table, rows in output.rows.items():
            for column in rows[0]:
                values = [row[column] for row in rows]
                if values[0] is not None:
                    found[f"{call}: {table.__tablename__}.{column}"] = np.asarray(values)
    return found


def digest(arrays):
    whole = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        whole.update(f"{name} {array.shape} {array.dtype.kind}".encode())
        whole.update(json.dumps(array.tolist()).encode())
    return whole.hexdigest()


def summary(array):
    """Shape with mean, root mean square and a projection; of words, the words."""
    if array.dtype.kind == "U":
        return [list(array.shape), sorted(set(array.tolist()))]
    values = array.astype(np.float64).ravel()
    projection = (values * np.cos(np.arange(values.size))).sum() / np.sqrt(values.size)
    numbers = [values.mean(), np.sqrt((values**2).mean()), projection]
    return [list(array.shape), [float(f"{number:.6g}") for number in numbers]]


def stage_of(case):
    """A case is a stage, or a stage and what is special about its parameters."""
    return case.partition(",")[0]


def golden(case, outputs):
    stage, arrays = stage_of(case), columns(outputs)
    if stage in EXACT:
        return digest(arrays)
    if stage == "measure":  # times differ from one second to the next; what is timed does not
        kept = ("float32_bytes", "float16_bytes", "uint8_bytes", "image_bytes", ".part", ".device")
        named = {name: summary(array) for name, array in arrays.items() if name.endswith(kept)}
        return {"names": sorted(arrays), **named}
    # One table for all tensors of a network keeps the file readable.
    weights = [name for name in sorted(arrays) if ".weight" in name or ".bias" in name or "running" in name]
    rest = {name: summary(array) for name, array in arrays.items() if name not in weights}
    if weights:
        rest["weights"] = summary(np.concatenate([arrays[name].ravel() for name in weights]))
        rest["names of weights"] = hashlib.sha256(" ".join(weights).encode()).hexdigest()
    return rest


def assert_equals(got, expected, tolerance):
    if not isinstance(expected, dict):
        assert got == expected
        return
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value[1], list) and isinstance(value[1][0], float):
            assert got[name][0] == value[0], name
            scale = tolerance * max(abs(number) for number in value[1])
            np.testing.assert_allclose(got[name][1], value[1], rtol=0, atol=scale, err_msg=name)
        else:
            assert got[name] == value, name


def tolerance_of(case):
    return TRAINED_TOLERANCE if case.startswith(("train-", "adapt-")) else TOLERANCE


def test_every_stage_has_a_case():
    assert {stage_of(case) for case in cases()} == set(STAGES)


@pytest.mark.parametrize("case", cases())
def test_output_of_a_stage_changes_only_with_its_version(case, compute):
    got = golden(case, compute(case))
    version = str(STAGES[stage_of(case)].version)
    print(f'"{case}": {{"{version}": {json.dumps(got)}}}')
    assert version in GOLDEN.get(case, {}), "add what is printed above to golden.json"
    assert_equals(got, GOLDEN[case][version], tolerance_of(case))


@pytest.mark.parametrize("case", [case for case in cases() if case != "measure"])
def test_outputs_that_differ_are_told_apart(case, compute):
    outputs = compute(case)
    expected = golden(case, outputs)
    for output in outputs:
        for name, array in (output.tensors or {}).items():
            output.tensors[name] = array + np.ones_like(array)
        for rows in output.rows.values():
            for row in rows:
                row.update({name: value + 1 for name, value in row.items() if isinstance(value, int | float)})
    with pytest.raises(AssertionError):
        assert_equals(golden(case, outputs), expected, tolerance_of(case))
