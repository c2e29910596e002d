"""A worker whose code for a stage is another version leaves that stage's jobs alone, and says so."""

import pytest
from harness.cluster import Sizes
from harness.graph import layered
from harness.link import Link
from sqlalchemy import select

import orchestrator.cluster.reconcile
from db.models import Attempt

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


def test_no_job_is_computed_by_other_code(cluster, seed, say):
    other = cluster.add_worker("other", CHAOS_LINK_VERSION=OTHER)
    cluster.submit(layered(JOBS, seed))
    refusal = f"needs other code than this worker has: 'link {Link.version}, numpy "
    cluster.wait_for(lambda: other.log.exists() and refusal in other.log.read_text(), "it refuses")
    assert attempts(cluster) == []
    cluster.add_worker("fits")
    finish_all(cluster)
    assert attempts(cluster) == ["fits"] * JOBS
    refused = other.log.read_text().count(refusal)
    say(f"other code: {JOBS} jobs, computed by a worker of other code 0, left alone by it {refused} times")


def test_without_the_condition_other_code_computes_them(cluster, seed):
    cluster.add_worker("careless", CHAOS_LINK_VERSION=OTHER, CHAOS_OFF="code")
    cluster.submit(layered(JOBS, seed))
    finish_all(cluster)
    assert attempts(cluster) == ["careless"] * JOBS
