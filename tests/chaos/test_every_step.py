"""Faults at every step: a crash, a full disk or a failing one at step N, for every N; resumed, all is whole."""

import errno
import itertools
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.graph import Node, submit_graph
from harness.link import Link
from harness.operations import JOB, RUN, torn_files
from harness.steps import CRASH, FAULTS, IO_ERROR, NO_SPACE, Server
from harness.tables import all_rows
from sqlalchemy import func, insert, select, update

from db.artifacts import ArtifactStore
from db.engine import open_engine, reading, write
from db.limits import MAX_FAILURES
from db.models import Artifact, Attempt, Dataset, Image, Job, JobState, Run, RunState
from db.results.tables import Latency, SweepPoint, Temperature
from early_exit.synthetic import draw

CLASSES, IMAGES = 2, 20
FILE_STEPS = ("open", "fsync", "rename", "fsync folder")
"""Steps without which a file is not stored: a disk that fails there fails the attempt."""
NUMBERS = {NO_SPACE: errno.ENOSPC, IO_ERROR: errno.EIO}


@dataclass
class Place:
    """A folder of one point, with a copy of the template in it."""

    folder: Path

    def __post_init__(self):
        self.engine = open_engine(f"sqlite:///{self.folder / 'database.sqlite'}")
        self.store = ArtifactStore(str(self.folder / "artifacts"))

    def ask(self, statement):
        """All rows of a statement."""
        with reading(self.engine) as session:
            return [tuple(row) for row in session.execute(statement)]

    def value(self, statement):
        """The one value of a statement."""
        ((found,),) = self.ask(statement)
        return found

    def close(self):
        """Forget it."""
        self.engine.dispose()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def server():
    """The warm process."""
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def templates(tmp_path_factory, sqlite_template, server):
    """A folder of folders: ``submit`` is empty but for its tables, ``job`` has three links, ``report`` is done."""
    folder = tmp_path_factory.mktemp("steps")
    draw(folder / "pixels", 10 * IMAGES // CLASSES, 35, 0)
    for unused in sorted((folder / "pixels").iterdir())[CLASSES:]:
        shutil.rmtree(unused)
    for name in ("submit", "job", "report"):
        (folder / name).mkdir()
        shutil.copy(sqlite_template, folder / name / "database.sqlite")
    for name in ("job", "report"):
        place = Place(folder / name)
        submit_graph(place.engine, [Node(Link("a"), ()), Node(Link("b"), (0,)), Node(Link("c"), (1,))])
        place.engine.dispose()
        assert server.do("first", place.folder).status == 0
    place = Place(folder / "report")
    write(place.engine, _end_with_results)
    place.engine.dispose()
    return folder


def _end_with_results(session):
    (artifact,) = session.scalars(select(Artifact.id)).all()
    spec = {"p_tar": 0.8, "seeds": [0], "fidelity": ["corrected"], "payload": "json", "levels": {}}
    session.execute(update(Run).values(state=RunState.FAILED, finished_at=1.7e9, spec=spec))
    session.execute(update(Job).values(seed=0, fidelity="corrected"))
    session.execute(update(Job).where(Job.artifact_id == artifact).values(stage="sweep"))
    session.execute(
        update(Job).where(Job.id == JOB).values(state=JobState.FAILED, error="OSError: disk gone")
    )
    session.execute(update(Job).where(Job.id > JOB).values(state=JobState.SKIPPED))
    condition = {"artifact_id": artifact, "policy": "oracle", "kind": "pristine", "level": 0, "p_tar": 0.8}
    counts = {f"{letter}{k}": 1 for letter in "nc" for k in (1, 2, 3, 4)} | {
        "r1": 1,
        "r2": 1,
        "r3": 1,
        "n": 4,
    }
    session.execute(insert(SweepPoint), [condition | counts])
    parts = ("mean", "p50", "p95", "classifier", "edge", "link", "cloud")
    seconds = {f"{part}_seconds": 0.5 for part in parts}
    latency = {"network": "wifi", "payload": "json", "n": 4, "offloaded": 1}
    session.execute(insert(Latency), [condition | latency | seconds])


@pytest.fixture
def place_of(templates):
    """``place_of("job")`` is a copy of a template."""

    def copy(name):
        folder = Path(tempfile.mkdtemp(dir=templates))
        shutil.copytree(templates / name, folder, dirs_exist_ok=True)
        return Place(folder)

    return copy


def all_of(names, rng):
    """Every point."""
    return list(range(1, len(names) + 1))


def of_each_row(names, rng):
    """Where one step comes many times in a row: the first of them, the last, and one between."""
    chosen, start = [], 1
    for _, row in itertools.groupby(names):
        end = start + len(list(row))
        chosen += sorted({start, rng.randrange(start, end), end - 1})
        start = end
    return chosen


def in_turn(rng):
    """Which faults a point gets: one, the next point the next."""
    shift = rng.randrange(len(FAULTS))
    return lambda at: FAULTS[(at + shift) % len(FAULTS) :][:1]


def crash_and_in_turn(rng):
    """Which faults a point gets: a crash and one of the others, the next point the next."""
    return lambda at: (CRASH, (NO_SPACE, IO_ERROR)[at % 2])


def each(rng):
    """Which faults a point gets: all."""
    return lambda at: FAULTS


@pytest.fixture
def every_step(server, place_of, seed):
    """``every_step("job", check)``: faults at every step, ``check(place, name, fault, ending)`` after each.

    Returns a line that says at how many steps of how many, and how many faults there were of each kind.
    """

    def walk(operation, check, points=all_of, faults=each, template=None):
        calm = place_of(template or operation)
        names = server.do(operation, calm.folder).names
        calm.close()
        rng, done = random.Random(f"{seed} {operation}"), Counter()
        chosen, faults_at = points(names, rng), faults(rng)
        for at in chosen:
            for fault in faults_at(at):
                place = place_of(template or operation)
                ending = server.do(operation, place.folder, fault, at)
                assert ending.crashed == (fault == CRASH), (names[at - 1], ending)
                check(place, names[at - 1], fault, ending)
                place.close()
                done[fault] += 1
        return f"{operation}: {len(chosen)} of {len(names)} points, faults {dict(sorted(done.items()))} seed {seed}"

    return walk


THOROUGH = pytest.param(all_of, each, marks=pytest.mark.storm, id="all")
"""All faults at all points of what has many."""


# ---- submit -------------------------------------------------------------------------------------------


def plan_of(place):
    """All that a submit stores of its plan and its dataset."""
    jobs = select(Job.id, Job.run_id, Job.key, Job.state, Job.waiting_for, Job.attempt).order_by(Job.id)
    return place.ask(jobs), *(
        place.value(select(func.count()).select_from(table)) for table in (Run, Dataset, Image)
    )


@pytest.mark.parametrize(("points", "faults"), [pytest.param(of_each_row, in_turn, id="few"), THOROUGH])
def test_a_submit_that_ends_at_any_step_leaves_one_whole_run_or_none(
    server, place_of, every_step, points, faults, say
):
    calm = place_of("submit")
    assert server.do("submit", calm.folder).answer == [RUN, False]
    whole = plan_of(calm)
    assert whole[1:] == (1, 1, IMAGES)
    seen = Counter()

    def check(place, name, fault, ending):
        runs = place.value(select(func.count()).select_from(Run))
        assert (plan_of(place) == whole) if runs else (place.value(select(func.count(Job.id))) == 0)
        again = server.do("submit", place.folder)
        assert again.answer == [RUN, bool(runs)], again
        assert plan_of(place) == whole
        seen[bool(runs)] += 1

    line = every_step("submit", check, points, faults)
    assert seen[False] > 0
    assert seen[True] > 0
    say(f"{line}, submitted again: none was there {seen[False]}, a whole run {seen[True]}, half a run 0")


# ---- claim, artifact write, finish ---------------------------------------------------------------------


def job_of(place):
    """The middle link's row."""
    columns = (Job.state, Job.failures, Job.error)
    return place.ask(select(*columns).where(Job.id == JOB))[0]


def assert_whole(place):
    """The middle link took effect once, its file is what its row says, and nothing lies about."""
    *done, following = place.ask(select(Job.state, Job.waiting_for).order_by(Job.id))
    assert done == [(JobState.SUCCEEDED, 0)] * 2
    # a reconciler may have queued it already
    assert following in [(JobState.READY, 0), (JobState.QUEUED, 0)]
    assert place.value(select(func.count()).select_from(Artifact)) == 2
    assert place.value(select(func.count()).select_from(Temperature)) == 8
    for uri, sha256 in place.ask(select(Artifact.uri, Artifact.sha256)):
        place.store.read(uri, sha256)
    outcomes = select(Attempt.outcome).where(Attempt.job_id == JOB)
    assert Counter(place.ask(outcomes))[("succeeded",)] == 1
    assert place.store.temporary_files() == []
    assert torn_files(place.store) == []


@pytest.mark.parametrize(("points", "faults"), [pytest.param(all_of, crash_and_in_turn, id="few"), THOROUGH])
def test_a_job_that_ends_at_any_step_takes_effect_once(server, every_step, points, faults, say):
    failed, stored = Counter(), Counter()

    def check(place, name, fault, ending):
        assert torn_files(place.store) == []
        _, failures, error = job_of(place)
        if fault != CRASH and name in FILE_STEPS:
            # the machine's fault is not charged
            assert (failures, ending.raised) == (0, False), name
            assert error.startswith(f"put back by here: OSError: [Errno {NUMBERS[fault]}] "), error
            assert place.store.temporary_files() == []
            stored[name] += 1
        failed[fault] += failures
        assert failures <= 1
        resumed = server.do("resume", place.folder)
        assert resumed.status == 0, resumed
        assert_whole(place)

    line = every_step("job", check, points, faults)
    assert set(stored) == set(FILE_STEPS)
    say(f"{line}, failed {dict(+failed)}, put back {dict(stored)}, took effect twice or never 0")


def test_a_writer_without_a_temporary_file_leaves_torn_files(every_step):
    torn = []

    def check(place, name, fault, ending):
        torn.extend(torn_files(place.store))

    every_step("naive job", check, faults=in_turn, template="job")
    assert len(torn) > 0


def test_a_disk_that_stays_full_is_charged_to_no_job(server, place_of):
    place = place_of("job")
    names = server.do("job", place_of("job").folder).names
    full = names.index("open") + 1
    for _ in range(MAX_FAILURES + 1):
        assert server.do("job", place.folder, NO_SPACE, full).status == 0
    state, failures, error = job_of(place)
    assert (state, failures) == (JobState.READY, 0)
    assert error == "put back by here: OSError: [Errno 28] No space left on device"
    assert place.store.temporary_files() == []
    # there is space again
    assert server.do("job", place.folder).status == 0
    assert_whole(place)


# ---- report -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("points", "faults"), [pytest.param(all_of, in_turn, id="few"), THOROUGH])
def test_a_report_that_ends_at_any_step_changes_nothing_and_is_printed_again(
    server, place_of, every_step, points, faults, say
):
    calm = place_of("report")
    first = server.do("report", calm.folder)
    assert first.status == 0, first.answer
    code, text = first.answer
    assert code == 3
    assert "Accuracy at p_tar 0.8" in text
    rows = all_rows(calm.engine)

    def check(place, name, fault, ending):
        assert all_rows(place.engine) == rows
        again = server.do("report", place.folder)
        assert again.answer == [code, text.replace(str(calm.folder), str(place.folder))]

    say(every_step("report", check, points, faults))
