"""Fixtures for whole runs: commands as a user types them, each test's home folder, and two runs that tests share.

A home lies under a short path, since the socket of its Valkey does. Waiting is for a state that the database
or the process table shows; the seconds only bound it.
"""

import fcntl
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("early_exit", "db", "tasks", "orchestrator", "workers")
PROGRAM = Path(sys.executable).parent / "orchestrator"

SMALL = {
    "synthetic.images": 100,
    "synthetic.size": 35,
    "image_size": 32,
    "spectrum_size": 32,
    "shard_size": 8,  # two test shards, of eight images and of two
    "views": 2,
    "levels.gaussian_blur": [1, 3],
    "levels.gaussian_noise": [10, 40],
    "architecture.width": 0.25,
    "backbone.epochs": 3,
    "backbone.batch_size": 4,
    "classifier.epochs": 1,
    "expert.epochs": 8,
    "measurement.warm_ups": 2,
    "measurement.repeats": 5,
    "hardware": "another machine's",
}

OF_RUN = (
    "WITH made AS (SELECT id, key, stage, sha256 FROM artifacts"
    " WHERE id IN (SELECT artifact_id FROM jobs WHERE run_id = ?)) "
)

MEASURED = ("stage_times", "latencies", "missed_deadlines")
"""Tables of measured times, and of what is computed from them."""


@dataclass(frozen=True)
class Home:
    """One home folder: commands that work in it, what its database says, and the processes that belong to it."""

    path: Path
    program: Path = PROGRAM

    @property
    def environment(self) -> dict[str, str]:
        ours = {"ORCHESTRATOR_HOME": str(self.path), "OMP_WAIT_POLICY": "PASSIVE"}
        return {k: v for k, v in os.environ.items() if not k.startswith("ORCHESTRATOR_")} | ours

    def command(self, *arguments: Any, seconds: float = 400, **variables: str):
        """Run ``orchestrator`` to its end, away from any checkout."""
        return self._run([PROGRAM, *arguments], self.environment | variables, seconds)

    def run_code(self, code: str, *arguments: Any):
        """Run Python code with arguments to its end: ``orchestrator`` with something in it changed."""
        return self._run([sys.executable, "-c", code, *arguments], self.environment)

    def _run(self, command: list[Any], environment: dict[str, str], seconds: float | None = None):
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            cwd=self.path.parent,
            env=environment,
            timeout=seconds,
            check=False,
        )

    def start(self, *arguments: Any, **variables: str) -> subprocess.Popen:
        """Start ``orchestrator`` in a session of its own; what it prints goes to one stream."""
        return subprocess.Popen(
            [PROGRAM, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.path.parent,
            env=self.environment | {"PYTHONUNBUFFERED": "1"} | variables,
            start_new_session=True,
        )

    def rows(self, statement: str, *values: Any) -> list[tuple]:
        """Rows of its database; none before there is one."""
        try:
            with closing(sqlite3.connect(f"file:{self.path}/orchestrator.db?mode=ro", uri=True)) as database:
                return database.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if "unable to open" in str(error) or "no such table" in str(error):
                return []
            raise

    def value(self, statement: str, *values: Any) -> Any:
        """The one value of a statement, None where there is no row."""
        found = self.rows(statement, *values)
        return found[0][0] if found else None

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this home: by its environment, its command line or its folder."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            named = process.environ().get("ORCHESTRATOR_HOME") == str(self.path)
            return named or str(self.path) in " ".join([process.cwd(), *process.cmdline()])
        except psutil.Error:
            return False

    def kill_everything(self) -> None:
        """``kill -9`` of every process of this home, again until none is left."""
        while processes := self.processes():
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=5)

    def wait_for(self, statement: str, *values: Any, process: subprocess.Popen | None = None) -> Any:
        """Wait until a statement has a value that is true, while ``process`` runs; returns it."""
        return wait_until(lambda: self.value(statement, *values), statement, process)

    def numbers(self, run: int = 1) -> dict[str, list[tuple]]:
        """All that a run has computed, by key: the digest of every file and every row, measured times aside."""
        files = "SELECT key, stage, sha256 FROM made WHERE stage NOT IN ('measure', 'latency', 'deadlines')"
        found = {"artifacts": self.rows(OF_RUN + files, run)}
        for table in self.result_tables():
            names = [name for (name,) in self.rows("SELECT name FROM pragma_table_info(?)", table)]
            columns = ", ".join(name for name in names if name != "artifact_id")
            joined = f"SELECT key, {columns} FROM {table} JOIN made ON id = artifact_id"  # noqa: S608  # our names
            found[table] = self.rows(OF_RUN + joined, run)
        return {table: sorted(rows) for table, rows in found.items()}

    def result_tables(self) -> list[str]:
        """Tables whose rows belong to artifacts, without those of measured times."""
        statement = (
            "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
            " WHERE m.type = 'table' AND c.name = 'artifact_id' AND m.name <> 'jobs' ORDER BY m.name"
        )
        return [name for (name,) in self.rows(statement) if name not in MEASURED]

    def computed_stages(self, run: int) -> dict[str, int]:
        """Attempts of a run by stage."""
        statement = (
            "SELECT j.stage, COUNT(*) FROM attempts a JOIN jobs j ON j.id = a.job_id"
            " WHERE j.run_id = ? GROUP BY j.stage"
        )
        return dict(self.rows(statement, run))


def wait_until(condition, what: str, process: subprocess.Popen | None = None, seconds: float = 240) -> Any:
    """Look until ``condition()`` is true and return what it said; fail when ``process`` ends or time is up."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended with {process.returncode} before: {what}\n{process.stdout.read()}")
        assert time.monotonic() < deadline, f"not seen in {seconds} s: {what}"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def wait():
    """``wait(condition, what)``: look until it is true."""
    return wait_until


@pytest.fixture(scope="session")
def small():
    """``small(**{"p_tar": 0.9})``: the options of a small run, with other fields where they are given."""

    def options(fields=None):
        chosen = SMALL | (fields or {})
        return [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]

    return options


@pytest.fixture(scope="session")
def new_home():
    """``new_home()``: a home folder; whatever still runs for it at the end is killed."""
    homes = []

    def make():
        homes.append(Home(Path(tempfile.mkdtemp(prefix="o-")) / "home"))
        return homes[-1]

    yield make
    for home in homes:
        home.kill_everything()
        shutil.rmtree(home.path.parent)


@pytest.fixture
def home(new_home):
    """A home folder of the test's own."""
    return new_home()


@dataclass(frozen=True)
class Finished:
    """Run 1 of a home that all tests share, in whichever process: they may look at it, and write into copies."""

    home: Home
    output: subprocess.CompletedProcess
    left: list[str]
    """Processes of the home right after the command had ended."""


@pytest.fixture(scope="session")
def finish_once(tmp_path_factory, worker_id):
    """``finish_once(name, *arguments)``: a ``Finished`` by that command, by whichever test process asks first."""
    own = tmp_path_factory.getbasetemp()
    common = own if worker_id == "master" else own.parent

    def finish(name, *arguments):
        folder = common / name
        folder.mkdir(exist_ok=True)
        kept = folder / "finished.pickle"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                home = Home(folder / "home")
                output = home.command(*arguments)
                left = [str(process) for process in home.processes()]
                home.kill_everything()
                kept.write_bytes(pickle.dumps(Finished(home, output, left)))
            return pickle.loads(kept.read_bytes())

    return finish


@pytest.fixture(scope="session")
def finished(finish_once, small):
    """The small paper by workers."""
    return finish_once("by-workers", "submit", "full-paper", *small())


@pytest.fixture(scope="session")
def in_process(finish_once, small):
    """The small paper in one process: what workers must compute, however they are disturbed."""
    one = finish_once("in-process", "submit", "full-paper", "--in-process", *small())
    assert one.output.returncode == 0, one.output.stderr
    return one


@pytest.fixture(scope="session")
def copy_of(new_home):
    """``copy_of(home)``: a home to write into, with all runs of one that is only read meanwhile."""

    def copy(home):
        copied = new_home()
        shutil.copytree(home.path, copied.path, ignore=shutil.ignore_patterns("*.db-wal", "*.db-shm", "run"))
        return copied

    return copy


@pytest.fixture(scope="session")
def recounted():
    """``recounted(home, expert, kind, level, p_tar)`` of run 1, from the prediction of every image and exit.

    (overall accuracy, edge accuracy, edge exits, images): the exit rule once more, in plain Python. There is no
    edge accuracy where no image leaves on the edge.
    """

    def recount(home, expert, kind, level, p_tar):
        statement = (
            "SELECT p.image, p.exit, p.confidence, p.correct FROM predictions p"
            " JOIN jobs j ON j.artifact_id = p.artifact_id AND j.run_id = 1"
            " WHERE p.expert = ? AND p.kind = ? AND p.level = ?"
        )
        images = {}
        for image, k, confidence, correct in home.rows(statement, expert, kind, level):
            images.setdefault(image, {})[k] = (confidence, correct)
        right, edge, edge_right = 0, 0, 0
        for exits in images.values():
            leaves = next((k for k in (1, 2, 3) if exits[k][0] > p_tar), None)
            if leaves is None:  # in the cloud; where that exit is not sure, the surest of all answers
                surest = max((1, 2, 3, 4), key=lambda k, exits=exits: exits[k][0])
                right += exits[4 if exits[4][0] >= p_tar else surest][1]
            else:
                edge += 1
                edge_right += exits[leaves][1]
                right += exits[leaves][1]
        return right / len(images), edge_right / edge if edge else None, edge, len(images)

    return recount


@pytest.fixture
def copied_packages(tmp_path):
    """A folder with copies of the packages; on PYTHONPATH it comes before what is installed."""
    folder = tmp_path / "copied"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="session")
def interrupt():
    """``interrupt(process)``: Ctrl-C to this one process; returns what it prints until it has ended."""

    def send(process):
        process.send_signal(signal.SIGINT)
        return process.communicate(timeout=120)[0]

    return send
