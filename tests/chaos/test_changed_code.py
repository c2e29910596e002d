"""A worker whose code for a stage is another version leaves that stage's jobs alone, and their messages too."""

import pytest
from harness.cluster import Sizes
from harness.graph import layered
from harness.link import Link
from sqlalchemy import select

import orchestrator.cluster.reconcile
from db.models import Attempt
from tasks.app import create_app

JOBS = 12
OTHER = str(Link.version + 1)


@pytest.fixture
def cluster(new_cluster, monkeypatch):
    """A cluster without workers, whose reconciler is the test's own and rings again at once."""
    monkeypatch.setattr(orchestrator.cluster.reconcile, "RING_AGAIN_SECONDS", 0.1)
    return new_cluster("sqlite", Sizes(workers=0, reconcilers=0), kept=False)


def finish_all(cluster):
    """Rounds of the reconciler until no run is active."""

    def ended():
        cluster.reconcile_once()
        return not cluster.is_active()

    cluster.wait_for(ended, "the end of the run")


def attempts(cluster):
    """Who executed every attempt so far."""
    return cluster.ask(lambda session: session.scalars(select(Attempt.worker)).all())


def test_no_job_is_computed_by_other_code_and_no_message_goes_to_it(cluster, seed, say):
    other = cluster.add_worker("other", CHAOS_LINK_VERSION=OTHER)
    cluster.wait_for(other.children, "its pool")
    cluster.submit(layered(JOBS, seed))
    waiting = cluster.messages()
    assert waiting > 0
    # it has been asked something after the messages were there, and answered
    with create_app(f"redis+socket://{cluster.socket}") as app:
        cluster.wait_for(app.control.inspect(timeout=1.0).active, "an answer")
    assert (cluster.messages(), attempts(cluster)) == (waiting, [])
    cluster.add_worker("fits")
    finish_all(cluster)
    assert attempts(cluster) == ["fits"] * JOBS
    say(f"other code: {JOBS} jobs, computed by a worker of other code 0, messages that it took 0")


def test_without_the_condition_other_code_computes_them(cluster, seed):
    cluster.add_worker("careless", CHAOS_LINK_VERSION=OTHER, CHAOS_OFF="code")
    cluster.submit(layered(JOBS, seed))
    finish_all(cluster)
    assert attempts(cluster) == ["careless"] * JOBS
