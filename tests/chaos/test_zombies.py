"""Zombies: who is stopped past its lease and goes on writes nothing, discards what it made and says so."""

import hashlib

import pytest
from harness.cluster import Sizes
from harness.fences import fence_off
from harness.graph import Node
from harness.link import Link
from harness.oracle import bad_files, numbers
from harness.tables import all_rows
from sqlalchemy import delete, select

from db.artifacts import StoredFile
from db.engine import write
from db.jobs import Outcome, fail, finish, lose, put_back, renew, saved_progress
from db.limits import LEASE_SECONDS
from db.models import Artifact, Attempt, Job, JobState, RunState
from db.recovery import expire, repair
from db.results.tables import Temperature

# ---- at the database ----------------------------------------------------------------------------------

FILE = StoredFile("files/ab/abcd.safetensors", "abcd", 12)
ROWS = {Temperature: [{"exit": 1, "expert": "pristine", "temperature": 1.5}]}
OTHER_FILE = StoredFile("files/ef/efgh.safetensors", "efgh", 34)
OTHER_ROWS = {Temperature: [{"exit": 1, "expert": "pristine", "temperature": 99.0}]}

WRITES = {
    "renew": renew,
    "save progress": saved_progress,
    "finish": lambda session, held: finish(session, held, Outcome(OTHER_FILE, OTHER_ROWS, 1_000)),
    "fail": lambda session, held: fail(session, held, "ValueError: no", "", retry=True),
    "fail for good": lambda session, held: fail(session, held, "ValueError: no", "", retry=False),
    "put back": lambda session, held: put_back(session, held, "released"),
    "lose": lambda session, held: lose(session, held, "zombie"),
    "set its input aside": lambda session, held: repair(session, held, held.inputs[0]),
}


@pytest.fixture(params=["while another computes", "after another has finished"])
def zombie(request, add_run, engine, later):
    """The claim of a middle job whose lease has run out; another attempt holds the job, or has finished it."""
    run = add_run({"input": [], "job": ["input"], "child": ["job"]})
    run.do("input", FILE)
    stopped = run.claim("job")
    later(LEASE_SECONDS + 1)
    write(engine, expire)
    other = run.claim("job")
    assert (stopped.attempt, other.attempt) == (1, 2)
    if request.param == "after another has finished":
        assert run.finish(other, StoredFile("files/cd/cdef.safetensors", "cdef", 12), ROWS)
    return stopped


def test_no_write_of_a_zombie_is_accepted(zombie, engine):
    before = all_rows(engine)
    accepted = {
        tried for tried in WRITES if write(engine, lambda session, t=tried: WRITES[t](session, zombie))
    }
    assert accepted == set()
    assert all_rows(engine) == before


def test_without_the_fence_a_zombies_result_is_accepted(zombie, engine, monkeypatch):
    fence_off(put=monkeypatch.setattr)
    before = all_rows(engine)
    assert write(engine, lambda session: WRITES["finish"](session, zombie))
    assert all_rows(engine) != before


def test_of_two_that_hold_the_same_attempt_the_database_knows_one(add_run, engine):
    """As after a failover to a standby that was behind: the first claim is forgotten, its number is given again."""
    run = add_run({"job": []})
    forgotten = run.claim("job")
    run.set("job", state=JobState.READY, attempt=0, token=None, lease_until=None)
    with engine.begin() as connection:
        connection.execute(delete(Attempt))
    known = run.claim("job")
    assert (forgotten.attempt, known.attempt) == (1, 1)
    assert not run.finish(forgotten, OTHER_FILE, OTHER_ROWS)
    assert run.finish(known, FILE, ROWS)
    assert run.state == RunState.SUCCEEDED


# ---- with real workers --------------------------------------------------------------------------------

STOPPED = 2
"""Jobs that a worker holds when it is stopped: as many as it has processes, so that no message lies with it."""
SAYS_SO = ("is fenced out: discarded", "lost its lease: stopped, discarded")


def gated(folder, name):
    """Jobs that hold until the file NAME is there, and one that reads them."""
    gate = str(folder / name)
    jobs = [Node(Link(f"{name}-{number}", gate=gate)) for number in range(STOPPED)]
    return [*jobs, Node(Link(f"{name}-join"), tuple(range(STOPPED)))]


def stop_while_it_computes(cluster, worker, nodes):
    """Let one worker claim these jobs and stop it there; returns their run."""
    run_id = cluster.submit(nodes)
    cluster.wait_for(lambda: len(running(cluster, worker.name)) == STOPPED, f"{worker.name} computes")
    cluster.freeze(worker)
    return run_id


def running(cluster, worker):
    """The jobs that a worker holds."""
    statement = select(Job.id).join(Attempt, (Attempt.job_id == Job.id) & (Attempt.attempt == Job.attempt))
    held = statement.where(Job.state == JobState.RUNNING, Attempt.worker == worker)
    return cluster.ask(lambda session: session.scalars(held).all())


def accepted(cluster, worker):
    """Attempts of a worker that were written down as succeeded."""
    succeeded = select(Attempt).where(Attempt.worker == worker, Attempt.outcome == "succeeded")
    return len(cluster.ask(lambda session: session.scalars(succeeded).all()))


def said(worker):
    """How often a worker's log says that it discards what it made."""
    return sum(worker.log.read_text().count(words) for words in SAYS_SO)


def files(cluster):
    """Digest and time of every artifact's file."""
    uris = cluster.ask(lambda session: session.scalars(select(Artifact.uri)).all())
    paths = [cluster.store.root / uri for uri in uris]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.storm)])
def test_a_worker_stopped_past_its_lease_writes_nothing_and_says_so(new_cluster, database, say):
    """Beside it a worker without the fence, which writes: the control."""
    cluster = new_cluster(database, Sizes(workers=0, lease_seconds=2), kept=False)
    fenced = cluster.add_worker("fenced", CHAOS_OFF="watchdog")
    first = stop_while_it_computes(cluster, fenced, gated(cluster.folder, "one"))
    unfenced = cluster.add_worker("unfenced", CHAOS_OFF="watchdog,fence")
    second = stop_while_it_computes(cluster, unfenced, gated(cluster.folder, "two"))
    cluster.add_worker("other")
    for name in ("one", "two"):
        (cluster.folder / name).touch()
    cluster.wait_for(lambda: not cluster.is_active(), "the other worker has finished both runs")
    assert accepted(cluster, "other") == 2 * (STOPPED + 1)
    rows, results, stored = all_rows(cluster.engine), numbers(cluster.engine, first), files(cluster)

    cluster.thaw(fenced)
    cluster.wait_for(lambda: said(fenced) == STOPPED, "the zombie says that it discards")
    assert accepted(cluster, "fenced") == 0
    assert all_rows(cluster.engine) == rows
    assert files(cluster) == stored
    assert bad_files(cluster) == []

    cluster.thaw(unfenced)
    cluster.wait_for(lambda: accepted(cluster, "unfenced") == STOPPED, "the unfenced zombie writes")
    assert all_rows(cluster.engine) != rows
    assert said(unfenced) == 0
    assert numbers(cluster.engine, first) == results
    say(
        f"zombies on {database}: stopped {2 * STOPPED} accepted with the fence {accepted(cluster, 'fenced')}"
        f" without it {accepted(cluster, 'unfenced')} finished by others {accepted(cluster, 'other')}"
        f" runs {first} and {second}"
    )
