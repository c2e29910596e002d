"""Cancel and retry: a run stops at any point and writes nothing more; tried again, it ends with its own numbers."""

import hashlib
import random
import signal
import sys

import pytest
from harness.cluster import Sizes
from harness.graph import Node, layered
from harness.link import Link
from harness.oracle import bad_files
from harness.switches import DEAF, RENEWALS, SWITCHES_VARIABLE, renewals
from sqlalchemy import func, select

from db.engine import write
from db.models import Artifact, Attempt, Job, JobState, Run, RunState
from db.results.tables import Temperature
from db.runs import cancel, retry
from orchestrator.main import main
from tasks.code import code_of

POINTS, JOBS = 20, 21
BY_COMMAND = 7
"""Every seventh point is the command itself; the others are what it calls."""
DISTURBED = 4
"""After every fourth point a worker is killed or restarted."""


class Cancelled:
    """One cancelled run: what was done when the cancel was committed, and what was running."""

    def __init__(self, cluster, number, rng):
        self.cluster, self.name = cluster, f"point-{number}"
        self.gate = cluster.folder / f"{self.name}.gate"
        self.nodes = layered(JOBS, number, name=self.name)
        self.nodes.append(Node(Link(f"{self.name}-held", gate=str(self.gate))))
        self.run_id = cluster.submit(self.nodes)
        self.at = rng.randrange(JOBS)
        held = self.nodes[-1].params.name
        cluster.wait_for(
            lambda: self.count(JobState.SUCCEEDED) >= self.at and self.states()[held] == JobState.RUNNING,
            f"{self.at} jobs done of run {self.run_id}",
        )

    def states(self):
        return dict(self._rows(Job.label, Job.state))

    def count(self, state):
        return sum(found == state for found in self.states().values())

    def cancel(self, *, by_command):
        """Cancel it; remember what was running."""
        if by_command:
            done = self.cluster.command("cancel", self.run_id)
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
            assert done.stdout.startswith(f"Run {self.run_id} is cancelled: ")
        else:
            assert write(self.cluster.engine, lambda session: cancel(session, self.run_id))
        self.done = {label for label, state in self.states().items() if state == JobState.SUCCEEDED}
        self.stopped = self._rows(Job.id, Attempt.attempt, where=Attempt.outcome == "cancelled")
        self.renewed = len(renewals(self.cluster.kills.folder))

    def retry(self):
        self.gate.touch()
        assert write(self.cluster.engine, lambda session: retry(session, self.run_id))

    def written(self):
        """Labels of the jobs of which there is an artifact, and of those of which there are rows."""
        artifacts = self._rows(Job.label, joined=(Artifact, Artifact.key == Job.key))
        rows = select(Temperature.expert).where(Temperature.expert.startswith(f"{self.name}-"))
        return {label for (label,) in artifacts}, set(self.cluster.ask(lambda s: s.scalars(rows).all()))

    def _rows(self, *columns, where=None, joined=None):
        statement = select(*columns).select_from(Job).where(Job.run_id == self.run_id)
        if joined is not None:
            statement = statement.join(*joined)
        if where is not None:
            statement = statement.join(Attempt, Attempt.job_id == Job.id).where(where)
        return [tuple(row) for row in self.cluster.ask(lambda s: s.execute(statement).all())]


def expected(nodes):
    """Digest by name: the stage ``link`` once more, in plain Python."""
    digests = []
    for node in nodes:
        content = node.params.name.encode() + b"".join(digests[parent] for parent in node.reads)
        digests.append(hashlib.sha256(content).digest())
    return {node.params.name: digest for node, digest in zip(nodes, digests, strict=True)}


def temperatures(cluster, names):
    """{(name, exit): temperature} of all links among ``names``."""
    statement = select(Temperature.expert, Temperature.exit, Temperature.temperature)
    rows = cluster.ask(lambda session: session.execute(statement).all())
    return {(name, k): value for name, k, value in rows if name in names}


def disturb(cluster, rng):
    """Restart a worker in the way that the seed chooses; the keeper starts it again."""
    way = rng.choice(("kill worker", "kill child", "restart"))
    if way == "kill worker":
        cluster.kill_worker(rng)
    elif way == "kill child":
        cluster.kill_child(rng)
    elif way == "restart":
        rng.choice(cluster.workers).send(signal.SIGTERM)


def test_a_run_that_is_cancelled_at_any_point_writes_nothing_more(new_cluster, seed, say):
    rng = random.Random(seed)
    cluster = new_cluster("sqlite", Sizes(environment={SWITCHES_VARIABLE: RENEWALS}))
    runs = []
    for number in range(POINTS):
        run = Cancelled(cluster, number, rng)
        run.cancel(by_command=number % BY_COMMAND == 0)
        if number % DISTURBED == 1:
            disturb(cluster, rng)
        runs.append(run)
    cluster.wait_for(cluster.is_stuck, "idle workers")
    for run in runs:
        assert set(run.states().values()) <= {JobState.SUCCEEDED, JobState.CANCELLED}
        assert run.written() == (run.done, run.done)
    stopped = [attempt for run in runs for attempt in run.stopped]
    most = max(len(_answers_after(run, attempt)) for run in runs for attempt in run.stopped)
    assert most <= 2  # two heartbeats: one may have been on its way
    assert bad_files(cluster) == []

    for run in runs[1:]:
        run.retry()
    runs[0].gate.touch()
    retried = cluster.command("retry", runs[0].run_id)
    assert (retried.returncode, retried.stderr) == (0, "")
    cluster.wait_for_end()
    _all_have_their_own_numbers(cluster, runs)
    say(
        f"cancel: points {POINTS} of {JOBS} jobs, at {[run.at for run in runs]}, stopped while running "
        f"{len(stopped)}, renewals after it at most {most}, written after it 0, "
        f"workers disturbed {POINTS // DISTURBED}, lost 0 after retry, seed={seed}"
    )


def _answers_after(run, attempt):
    """Renewals that an attempt asked for after its run was cancelled."""
    return [line for line in renewals(run.cluster.kills.folder)[run.renewed :] if line[:2] == attempt]


def _all_have_their_own_numbers(cluster, runs):
    assert cluster.states() == {JobState.SUCCEEDED: POINTS * (JOBS + 1)}
    digests = {name: digest for run in runs for name, digest in expected(run.nodes).items()}
    rows = {(name, k): 1 + digest[k] / 256 for name, digest in digests.items() for k in (1, 2, 3, 4)}
    assert temperatures(cluster, digests) == rows
    again = select(func.count(), func.count(Artifact.key.distinct())).select_from(Artifact)
    assert tuple(cluster.ask(lambda session: session.execute(again).one())) == (len(digests), len(digests))
    assert bad_files(cluster) == []


def test_a_worker_that_does_not_hear_of_it_goes_on(new_cluster):
    """A control: heartbeats that take every lease for held never stop a job."""
    sizes = Sizes(workers=1, concurrency=1, environment={SWITCHES_VARIABLE: f"{RENEWALS} {DEAF}"})
    cluster = new_cluster("sqlite", sizes)
    gate = cluster.folder / "gate"
    run_id = cluster.submit([Node(Link("held", gate=str(gate)))])
    cluster.wait_for(lambda: cluster.states().get(JobState.RUNNING), "a running job")
    write(cluster.engine, lambda session: cancel(session, run_id))
    before = len(renewals(cluster.kills.folder))
    cluster.wait_for(lambda: len(renewals(cluster.kills.folder)) >= before + 5, "five heartbeats")
    assert {held for _, _, held in renewals(cluster.kills.folder)[before + 1 :]} == {False}
    gate.touch()
    cluster.wait_for(
        lambda: "is fenced out: discarded" in cluster.workers[0].log.read_text(), "the job's end"
    )
    statement = select(func.count()).select_from(Artifact)
    assert cluster.ask(lambda session: session.scalar(statement)) == 0  # the fence stands all the same


LAST_JOB = {
    RunState.ACTIVE: JobState.READY,
    RunState.SUCCEEDED: JobState.SUCCEEDED,
    RunState.FAILED: JobState.FAILED,
    RunState.CANCELLED: JobState.CANCELLED,
}
"""The state of a run's last job by the run's own."""

# ---- what the commands say ----------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, sqlite_template, monkeypatch, capsys):
    """``command("cancel", 1)`` is (exit code, standard output, standard error), with a broker out of reach."""
    before = signal.getsignal(signal.SIGPIPE)
    (tmp_path / "database.sqlite").write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", f"sqlite:///{tmp_path / 'database.sqlite'}")
    monkeypatch.setenv("ORCHESTRATOR_BROKER_URL", f"redis+socket://{tmp_path}/nobody.sock")
    monkeypatch.setenv("ORCHESTRATOR_ARTIFACTS_URL", str(tmp_path / "artifacts"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    yield call
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture
def database_url(tmp_path, command):
    """The command's own database, for the fixtures that store runs."""
    return f"sqlite:///{tmp_path / 'database.sqlite'}"


@pytest.fixture
def add(add_run, engine):
    """``add(state)`` is a run of two jobs in this state that this code can go on with; the first one is done."""

    def store(state):
        code = {"code": code_of("sweep")}
        run = add_run({"a": [], "b": ["a"]}, columns={"a": code, "b": code})
        run.set("a", state=JobState.SUCCEEDED)
        error = "ValueError: no" if state == RunState.FAILED else None
        run.set("b", waiting_for=0, state=LAST_JOB[state], error=error)

        def overwrite(session):
            row = session.get_one(Run, run.id)
            row.state, row.finished_at = state, None if state == RunState.ACTIVE else row.created_at

        write(engine, overwrite)
        return run

    return store


def test_cancel_says_what_it_has_done_in_one_line(command, add):
    run = add(RunState.ACTIVE)
    assert command("cancel", run.id) == (
        0,
        "Run 1 is cancelled: 1 jobs of 2; 1 were done and are kept. To continue it after all: orchestrator retry 1\n",
        "",
    )
    assert run.state == RunState.CANCELLED
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.CANCELLED}


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (RunState.SUCCEEDED, "has succeeded"),
        (RunState.FAILED, "has failed"),
        (RunState.CANCELLED, "was cancelled"),
    ],
)
def test_cancel_of_a_run_that_has_ended_changes_nothing(command, add, state, what):
    run = add(state)
    before = run.states
    assert command("cancel", run.id) == (0, f"Run 1 {what}; there is nothing to cancel.\n", "")
    assert (run.state, run.states) == (state, before)


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELLED])
def test_retry_brings_an_ended_run_back_though_the_broker_is_away(command, add, state):
    run = add(state)
    code, said, error = command("retry", run.id)
    assert (code, error) == (0, "")
    assert said.splitlines() == [
        "Run 1: 1 jobs will be retried.",
        "The broker is out of reach; the run is stored and starts once a reconciler reaches the broker.",
        "Watch it: orchestrator resume 1, or: orchestrator status 1",
    ]
    assert run.state == RunState.ACTIVE
    assert run.states["a"] == JobState.SUCCEEDED
    assert run.states["b"] in (JobState.READY, JobState.QUEUED)


def test_retry_of_a_run_that_succeeded_says_so(command, add):
    run = add(RunState.SUCCEEDED)
    assert command("retry", run.id) == (0, "Run 1 has succeeded; there is nothing to retry.\n", "")
    assert run.state == RunState.SUCCEEDED


def test_retry_of_an_active_run_rings_for_it(command, add):
    """So that a retry whose commit was not answered goes on as well."""
    run = add(RunState.ACTIVE)
    code, said, error = command("retry", run.id)
    assert (code, error) == (0, "")
    assert said.splitlines()[0] == "Run 1 is active; there is nothing to retry."
    assert said.splitlines()[-1] == "Watch it: orchestrator resume 1, or: orchestrator status 1"
    assert run.state == RunState.ACTIVE


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_run_that_is_not_there_is_a_usage_error(command, add, verb):
    none = "error: no runs yet. Start one: orchestrator submit full-paper\n"
    assert command(verb) == (2, "", none)
    add(RunState.ACTIVE)
    unknown = "error: no run 7. `orchestrator status` lists all runs, up to 1.\n"
    assert command(verb, 7) == (2, "", unknown)
