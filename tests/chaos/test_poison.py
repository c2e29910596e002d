"""Poison: a job that cannot end well is tried as often as is allowed, and harms nobody but its dependents."""

from collections import Counter
from contextlib import contextmanager

import psutil
import pytest
from harness.cluster import Sizes
from harness.graph import Node
from harness.link import Link
from harness.poison import Poison
from sqlalchemy import select

import db.jobs
from db.models import Attempt, Job, JobState

FAILURES, LOSSES = 3, 2
LIMITS = {"ORCHESTRATOR_MAX_FAILURES": str(FAILURES), "ORCHESTRATOR_BACKOFF_SECONDS": "0.1"}
FAILING = {
    "raise": "ValueError: poison",
    "memory": "MemoryError: ",
    "exit": "SystemExit: poison",
    "loop": "ran longer than its deadline of 1 s",
    "deaf": "ran longer than its deadline of 1 s",
}
LOSING = ("kill", "hang", "hang-unwatched")
DEADLINES = {"loop": 1, "deaf": 1}
SIBLINGS = 20


class Poisoned:
    """A run with one poison of every way, each with a child and a grandchild, and with siblings."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.log = cluster.folder / "executions"
        self.log.touch()

    def submit(self, ways, siblings=0):
        nodes = [Node(Link("root"))]
        for way in ways:
            poison = Poison(way, way=way, log=str(self.log))
            deadline = DEADLINES.get(way, Poison.deadline_seconds)
            nodes.append(Node(poison, (0,), deadline_seconds=deadline))
        for position, way in enumerate(ways, start=1):
            nodes.append(Node(Link(f"{way} child"), (position,)))
            nodes.append(Node(Link(f"{way} grandchild"), (len(nodes) - 1,)))
        nodes += [Node(Link(f"sibling {number}"), (0,)) for number in range(siblings)]
        nodes.append(Node(Poison("result", way="result", log=str(self.log)), (0,)))
        self.run_id = self.cluster.submit(nodes)

    def executions(self):
        """How often each way was begun, as the jobs themselves have written."""
        return Counter(line.rsplit(" ", 1)[0] for line in self.log.read_text().splitlines())

    def processes(self, way):
        """What has executed a way and is still there."""
        lines = [line.rsplit(" ", 1) for line in self.log.read_text().splitlines()]
        return [int(process) for name, process in lines if name == way and _alive(int(process))]

    def jobs(self):
        """Rows by label."""
        return {job.label: job for job in self.cluster.ask(lambda s: s.scalars(select(Job)).all())}

    def attempts(self):
        """Attempts by label."""
        statement = select(Job.label).join(Attempt, Attempt.job_id == Job.id)
        return Counter(self.cluster.ask(lambda s: s.scalars(statement).all()))


def _alive(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _limits(monkeypatch, **limits):
    with monkeypatch.context() as patched:
        for name, value in limits.items():
            patched.setattr(db.jobs, name, value)
        yield


@pytest.fixture
def poisoned(new_cluster):
    """All ways at once on one cluster."""
    sizes = Sizes(concurrency=4, lease_seconds=2, losses=LOSSES, environment=LIMITS)
    poisoned = Poisoned(new_cluster("sqlite", sizes))
    poisoned.submit([*LOSING, *FAILING], SIBLINGS)
    poisoned.cluster.wait_for_end()
    return poisoned


def test_poison_is_tried_as_often_as_is_allowed_and_its_siblings_finish(poisoned, say):
    jobs, attempts, executions = poisoned.jobs(), poisoned.attempts(), poisoned.executions()
    for way, reason in FAILING.items():
        assert (jobs[way].failures, jobs[way].losses) == (FAILURES, 0), way
        assert executions[way] == attempts[way] == FAILURES, way
        assert jobs[way].error == reason
    for way in LOSING:
        assert (jobs[way].failures, jobs[way].losses) == (0, LOSSES), way
        assert executions[way] == attempts[way] == LOSSES, way
        assert jobs[way].error.startswith(f"lost its worker {LOSSES} times, the last time worker-"), way
    for way in (*FAILING, *LOSING):
        assert jobs[way].state == JobState.FAILED, way
        for below in ("child", "grandchild"):
            job = jobs[f"{way} {below}"]
            assert (job.state, job.attempt) == (JobState.SKIPPED, 0)
            assert job.error == f"skipped: it depends on job {jobs[way].id}, which failed"
    others = ["root", "result", *(f"sibling {number}" for number in range(SIBLINGS))]
    assert {jobs[label].state for label in others} == {JobState.SUCCEEDED}
    _says_it_in_one_line_and_exits_with_3(poisoned)
    _the_watchdog_has_ended_what_hung(poisoned)
    say(f"poison: ways {len(FAILING) + len(LOSING)} executions {executions.total() - 1} siblings lost 0")


def _says_it_in_one_line_and_exits_with_3(poisoned):
    resumed = poisoned.cluster.command("resume", poisoned.run_id)
    assert resumed.returncode == 3, resumed.stdout + resumed.stderr
    shown = [line for line in resumed.stdout.splitlines() if line.startswith("failed: ")]
    jobs = poisoned.jobs()
    assert shown == [f"failed: poison ({way}): {jobs[way].error}" for way in (*LOSING, *FAILING)]


def _the_watchdog_has_ended_what_hung(poisoned):
    """Of two that hang with the interpreter's lock held only that without a watchdog keeps its processes."""
    for way in ("hang", "deaf"):
        poisoned.cluster.wait_for(lambda way=way: not poisoned.processes(way), f"the end of {way}")
    assert len(poisoned.processes("hang-unwatched")) == LOSSES


def test_without_the_limits_poison_is_tried_for_ever(new_cluster, monkeypatch, say):
    """A control, and what Celery's `task_reject_on_worker_lost` does."""
    unlimited = {**LIMITS, "ORCHESTRATOR_MAX_FAILURES": "1000", "ORCHESTRATOR_BACKOFF_SECONDS": "0.001"}
    sizes = Sizes(workers=1, reconcilers=0, lease_seconds=0.5, environment=unlimited)
    poisoned = Poisoned(new_cluster("sqlite", sizes))
    poisoned.submit(["kill", "raise"])

    def beyond_all_bounds():
        poisoned.cluster.reconcile_once()
        executions = poisoned.executions()
        return executions["kill"] > 3 * LOSSES and executions["raise"] > 3 * FAILURES

    with _limits(monkeypatch, MAX_LOSSES=1000, MAX_FAILURES=1000):
        poisoned.cluster.wait_for(beyond_all_bounds, "more executions than are allowed")
    executions = poisoned.executions()
    say(f"poison without limits: kill {executions['kill']} raise {executions['raise']} executions and no end")
    assert poisoned.jobs()["kill"].state != JobState.FAILED
    assert poisoned.cluster.is_active()
