"""Finishing a job: artifact, rows and children in one transaction, for the attempt that holds it only."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from db.artifacts import StoredFile
from db.clock import now
from db.engine import reading, write
from db.jobs import fail, renew
from db.limits import LEASE_SECONDS
from db.models import Artifact, JobState, RunState
from db.recovery import expire
from db.results.tables import Temperature

FILE = StoredFile("files/ab/abcd.safetensors", "abcd", 12)
ROWS = {Temperature: [{"exit": k, "expert": "pristine", "temperature": k / 2} for k in (1, 2, 3, 4)]}


def count(engine, table):
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(table))


def test_finish_writes_artifact_rows_and_success_and_releases_the_children(add_run, engine):
    run = add_run({"a": [], "b": ["a"]}, columns={"a": {"stage": "train-expert"}})
    assert run.finish(run.claim("a"), FILE, ROWS)
    job = run.job("a")
    assert (job.state, job.cached, job.lease_until, job.error) == (JobState.SUCCEEDED, False, None, None)
    with reading(engine) as session:
        artifact = session.get_one(Artifact, job.artifact_id)
        temperatures = {row.exit: row.temperature for row in session.scalars(select(Temperature))}
        assert 0 <= session.scalar(select(now())) - artifact.created_at < 60
    assert (artifact.key, artifact.stage) == ("key-a", "train-expert")
    assert (artifact.uri, artifact.sha256, artifact.bytes) == (FILE.uri, FILE.sha256, FILE.bytes)
    assert temperatures == {1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0}
    assert run.states == {"a": JobState.SUCCEEDED, "b": JobState.READY}
    assert run.all("waiting_for") == {"a": 0, "b": 0}
    (attempt,) = run.attempts("a")
    assert (attempt.outcome, attempt.peak_memory_bytes) == ("succeeded", 1_000)
    assert attempt.finished_at >= attempt.started_at


def test_a_job_without_a_file_has_an_artifact_all_the_same(add_run, engine):
    run = add_run({"a": []})
    run.do("a", rows=ROWS)
    with reading(engine) as session:
        artifact = session.get_one(Artifact, run.job("a").artifact_id)
    assert (artifact.uri, artifact.sha256, artifact.bytes) == (None, None, 0)


def test_a_row_that_the_database_refuses_leaves_nothing_behind(add_run, engine):
    run = add_run({"a": [], "b": ["a"]})
    held = run.claim("a")
    cold = {Temperature: [{"exit": 1, "expert": "pristine", "temperature": 0.0}]}
    with pytest.raises(IntegrityError):
        run.finish(held, FILE, cold)
    assert run.states == {"a": JobState.RUNNING, "b": JobState.WAITING}
    assert count(engine, Artifact) == 0
    assert run.finish(held, FILE, ROWS)


def test_a_diamond_is_ready_when_its_last_parent_is_done(add_run):
    run = add_run({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    seen = []
    for name in ("a", "b", "c", "d"):
        seen.append((run.states["d"], run.job("d").waiting_for))
        run.do(name)
    assert seen == [
        (JobState.WAITING, 2),
        (JobState.WAITING, 2),
        (JobState.WAITING, 1),
        (JobState.READY, 0),
    ]
    assert run.state == RunState.SUCCEEDED


def test_a_parent_that_only_orders_is_waited_for(add_run):
    run = add_run({"a": [], "b": []}, after={"b": ["a"]})
    assert run.claim("b") is None
    run.do("a")
    assert run.claim("b").inputs == ()


def test_a_run_ends_with_its_last_job(add_run, engine):
    run = add_run({"a": [], "b": []})
    run.do("a")
    assert run.state == RunState.ACTIVE
    run.do("b")
    assert run.state == RunState.SUCCEEDED


# ---- the fence ----------------------------------------------------------------------------------------


@pytest.fixture
def zombie(add_run, engine, later):
    """A run whose job a is held by its second attempt, and the claim of the first, whose lease ran out."""
    run = add_run({"a": [], "b": ["a"]})
    first = run.claim("a")
    later(LEASE_SECONDS + 1)
    assert write(engine, expire) == 1
    assert run.claim("a").attempt == 2
    return run, first


def test_a_late_finish_of_an_older_attempt_writes_nothing(zombie, engine):
    run, first = zombie
    before = run.job("a").lease_until
    assert not run.finish(first, FILE, ROWS)
    assert run.states == {"a": JobState.RUNNING, "b": JobState.WAITING}
    assert (run.job("a").attempt, run.job("a").lease_until) == (2, before)
    assert count(engine, Artifact) == count(engine, Temperature) == 0
    assert [attempt.outcome for attempt in run.attempts("a")] == ["lost", None]


def test_a_late_failure_of_an_older_attempt_changes_nothing(zombie, engine):
    run, first = zombie
    assert not write(engine, lambda session: fail(session, first, "no", "…", retry=False))
    assert run.states == {"a": JobState.RUNNING, "b": JobState.WAITING}
    assert (run.job("a").failures, run.job("a").error) == (0, None)
    assert [attempt.traceback for attempt in run.attempts("a")] == [None, None]


def test_a_late_renewal_of_an_older_attempt_is_refused(zombie, engine, later):
    run, first = zombie
    before = run.job("a").lease_until
    later(5)
    assert not write(engine, lambda session: renew(session, first))
    assert run.job("a").lease_until == before


def test_a_finish_after_the_successor_finished_adds_nothing(zombie, engine):
    run, first = zombie
    run.set("a", state="ready", lease_until=None)
    run.do("a", FILE, ROWS)
    assert not run.finish(first, FILE, ROWS)
    assert (count(engine, Artifact), count(engine, Temperature)) == (1, 4)
    assert run.all("waiting_for") == {"a": 0, "b": 0}


def test_finishing_twice_counts_once(add_run, engine):
    run = add_run({"a": [], "b": [], "c": ["a", "b"]})
    held = run.claim("a")
    assert run.finish(held, FILE, ROWS)
    assert not run.finish(held, FILE, ROWS)
    assert run.job("c").waiting_for == 1


def test_renewing_moves_the_lease_on(add_run, engine, later):
    run = add_run({"a": []})
    held = run.claim("a")
    before = run.job("a").lease_until
    later(20)
    assert write(engine, lambda session: renew(session, held))
    assert 20 <= run.job("a").lease_until - before < 50
    later(15)  # past the first lease, within the second
    assert write(engine, expire) == 0
