"""A power cut: what workers' commits that did not wait for the disk leave is whole, and the run goes on from it.

On Postgres every ``stop`` of ``test_database_away`` is one: what was not written yet is gone.
"""

import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import link
from harness.graph import layered, submit_graph
from harness.oracle import numbers, undisturbed
from sqlalchemy import func, select, text

from db.artifacts import ArtifactStore
from db.engine import read, write
from db.limits import LEASE_SECONDS
from db.models import Artifact, Attempt, Job, JobState, Run, RunState
from db.recovery import expire
from orchestrator.submit.in_process import run_in_process

NODES = layered(160, 1)
INSTANTS = (15, 70, 120)
"""The power goes when so many jobs are done."""
WORK = """
import sys
from harness import link
from db.artifacts import ArtifactStore
from db.engine import open_engine
from orchestrator.submit.in_process import run_in_process

link.install()
run_in_process(open_engine(sys.argv[1], durable=False), ArtifactStore(sys.argv[2]), int(sys.argv[3]))
"""
FRAME_HEADER, LOG_HEADER, ATTEMPTED = 24, 32, 128
"""Bytes; the last is where SQLite's index of the log says how many frames a checkpoint may have copied."""


@dataclass(frozen=True)
class Instant:
    """A database's files as they were at one instant, and how many jobs were done."""

    folder: Path
    done: int

    @property
    def log(self):
        """The write-ahead log."""
        return self.folder / "database.sqlite-wal"

    def least(self):
        """How much of the log is on the disk for certain: a checkpoint waits for it before it copies a frame."""
        index = (self.folder / "database.sqlite-shm").read_bytes()
        (frames,) = struct.unpack_from("=I", index, ATTEMPTED)
        (page,) = struct.unpack_from(">I", self.log.read_bytes(), 8)
        return LOG_HEADER + frames * (FRAME_HEADER + page)

    def after_the_cut(self, folder, size):
        """The URL of what is there when the power is back: the file, and this much of its log."""
        folder.mkdir()
        shutil.copy(self.folder / "database.sqlite", folder)
        if size:
            (folder / "database.sqlite-wal").write_bytes(self.log.read_bytes()[:size])
        return f"sqlite:///{folder / 'database.sqlite'}"


def done_of(engine):
    statement = select(func.count()).where(Job.state == JobState.SUCCEEDED)
    return read(engine, lambda session: session.scalar(statement))


@pytest.fixture
def database_url(sqlite_template, tmp_path):
    """Of these tests: SQLite alone."""
    shutil.copy(sqlite_template, tmp_path / "database.sqlite")
    return f"sqlite:///{tmp_path / 'database.sqlite'}"


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """What the jobs compute where nothing happens to them."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), NODES)


@contextmanager
def worker(url, artifacts, run):
    """A process that does the run's jobs."""
    command = [sys.executable, "-c", WORK, url, str(artifacts), str(run)]
    path = [str(Path(link.__file__).parents[1]), *sys.path]
    process = subprocess.Popen(command, env={"PYTHONPATH": ":".join(path)})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def instants(database_url, engine, tmp_path):
    """The run, and copies of its database's files while its worker stands still."""
    run, found = submit_graph(engine, NODES), []
    # a submission waits for the disk: it is not what may be lost
    with sqlite3.connect(engine.url.database) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    connection.close()
    with worker(database_url, tmp_path / "artifacts", run) as process:
        for number in INSTANTS:
            while done_of(engine) < number:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGSTOP)
            folder = tmp_path / f"at-{number}"
            folder.mkdir()
            for path in tmp_path.glob("database.sqlite*"):
                shutil.copy(path, folder)
            found.append(Instant(folder, done_of(engine)))
            process.send_signal(signal.SIGCONT)
    return run, found


def test_a_run_goes_on_from_what_a_power_cut_leaves(
    instants, tmp_path, open_database, oracle, later, seed, say
):
    (run, found), rng = instants, random.Random(seed)
    later(LEASE_SECONDS + 1)
    forgotten = []
    for instant in found:
        least, whole = instant.least(), instant.log.stat().st_size
        for number, size in enumerate((whole, least, *(rng.randint(least, whole) for _ in range(2)))):
            folder = tmp_path / f"{instant.folder.name}-{number}"
            engine = open_database(instant.after_the_cut(folder, size))
            assert read(engine, lambda session: session.scalar(text("PRAGMA integrity_check"))) == "ok"
            assert read(engine, lambda session: session.execute(text("PRAGMA foreign_key_check")).all()) == []
            forgotten.append(instant.done - done_of(engine))
            go_on(engine, tmp_path / "artifacts", run)
            assert numbers(engine, run) == oracle
    say(
        f"power cut: {len(forgotten)} copies, jobs forgotten {sorted(forgotten)}, lost=0 duplicated=0 {seed=}"
    )
    assert max(forgotten) > 0


def go_on(engine, artifacts, run):
    """Do what is left, and each job once: one attempt that succeeded, one artifact."""
    write(engine, expire)
    with link.installed():
        run_in_process(engine, ArtifactStore(str(artifacts)), run)
    succeeded = select(Attempt.job_id).where(Attempt.outcome == "succeeded")
    assert read(engine, lambda session: session.get_one(Run, run).state) == RunState.SUCCEEDED
    jobs = read(engine, lambda session: session.scalars(succeeded).all())
    assert len(jobs) == len(set(jobs)) == len(NODES)
    assert read(engine, lambda session: session.scalar(select(func.count(Artifact.id)))) == len(NODES)


def test_without_its_log_the_file_alone_has_lost_commits(instants, tmp_path, open_database):
    """The control: a copy of the main file is no backup."""
    _, found = instants
    logged = [instant for instant in found if instant.least() < instant.log.stat().st_size]
    assert logged
    for instant in logged:
        alone = open_database(instant.after_the_cut(tmp_path / f"alone-{instant.done}", 0))
        assert done_of(alone) < instant.done
