"""SIGTERM, as from `docker stop`: no new claims; what runs finishes in time, or is handed back uncharged."""

import re
import signal
from pathlib import Path

import pytest
import yaml
from harness.cluster import Sizes
from harness.graph import Node
from harness.link import Link
from harness.switches import SOFT_VARIABLE
from sqlalchemy import select

from db.models import Attempt, Job, JobState
from tasks.app import create_app

SOFT_SECONDS = 3
SHUTDOWN = "Initiating Soft Shutdown"
COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


class Stopped:
    """One worker with two processes: one holds a job that ends soon, one a job that does not; more jobs wait."""

    def __init__(self, cluster):
        self.cluster, self.worker = cluster, cluster.workers[0]
        self.gates = {name: cluster.folder / f"{name}.gate" for name in ("short", "long")}
        held = [Node(Link(name, gate=str(gate))) for name, gate in self.gates.items()]
        cluster.submit([*held, *(Node(Link(f"later {number}")) for number in range(4))])
        cluster.wait_for(lambda: self.states().get(JobState.RUNNING) == 2, "two running jobs")

    def states(self):
        return self.cluster.states()

    def job(self, name):
        return self.cluster.ask(lambda s: s.scalars(select(Job).where(Job.label == name)).one())

    def outcomes(self):
        """Outcome by the attempt's job."""
        statement = select(Job.label, Attempt.outcome).join(Attempt, Attempt.job_id == Job.id)
        return sorted(map(tuple, self.cluster.ask(lambda s: s.execute(statement).all())))

    def terminate(self):
        """SIGTERM to the leader alone, which is all that `docker stop` does."""
        self.worker.process.send_signal(signal.SIGTERM)

    def wait_for_exit(self):
        self.cluster.wait_for(lambda: not self.worker.alive, "the worker's exit")


@pytest.fixture
def stopped(new_cluster):
    """The worker before its signal."""
    sizes = Sizes(workers=1, reconcilers=0, environment={SOFT_VARIABLE: str(SOFT_SECONDS)})
    return Stopped(new_cluster("sqlite", sizes, kept=False))


def test_a_worker_that_is_told_to_end_finishes_what_is_short_and_hands_back_what_is_long(stopped, say):
    stopped.terminate()
    stopped.cluster.wait_for(lambda: SHUTDOWN in stopped.worker.log.read_text(), "the soft shutdown")
    stopped.gates["short"].touch()
    stopped.wait_for_exit()
    assert stopped.outcomes() == [("long", "released"), ("short", "succeeded")]
    job = stopped.job("long")
    assert (job.state, job.attempt, job.failures, job.losses) == (JobState.READY, 1, 0, 0)
    assert stopped.worker.children() == []

    stopped.gates["long"].touch()
    stopped.worker.start()
    stopped.cluster.reconcile_once()
    stopped.cluster.wait_for_end()
    assert stopped.states() == {JobState.SUCCEEDED: 6}
    assert stopped.job("long").attempt == 2
    _an_idle_worker_ends_at_once(stopped)
    say("sigterm: attempted 6 acknowledged 6 lost 0 released 1 charged 0 claims-after-it 0")


def _an_idle_worker_ends_at_once(stopped):
    stopped.cluster.wait_for(stopped.cluster.is_stuck, "an idle worker")
    ends = stopped.worker.log.read_text().count(SHUTDOWN)
    stopped.terminate()
    stopped.wait_for_exit()
    assert stopped.worker.log.read_text().count(SHUTDOWN) == ends


def test_a_worker_that_is_killed_instead_is_charged_with_what_it_held(stopped, later):
    """A control."""
    stopped.worker.kill()
    later(10)
    stopped.cluster.reconcile_once()
    assert [stopped.job(name).losses for name in ("long", "short")] == [1, 1]
    assert stopped.outcomes() == [("long", "lost"), ("short", "lost")]


def test_docker_waits_longer_than_a_worker_needs():
    soft = create_app(None).conf.worker_soft_shutdown_timeout
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        seconds, unit = re.fullmatch(r"(\d+)(s)", service["stop_grace_period"]).groups()
        assert unit == "s"
        assert int(seconds) >= soft + 30, name
