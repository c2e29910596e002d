"""The database away, slow to answer or contended: every transaction happens once, or is tried again."""

import itertools
import random
import re
import subprocess
import sys
import threading
import time
from functools import partial

import psycopg
import pytest
from harness import link
from harness.cluster import Sizes
from harness.graph import Node, layered
from harness.link import Link
from harness.member import Member
from harness.oracle import assert_invariants, numbers, undisturbed
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

import db.engine
from db.artifacts import StoredFile
from db.claims import claim
from db.dispatch import top_up
from db.engine import Unreachable, open_engine, reading, write
from db.jobs import Outcome, Worker, fail, finish, lose, put_back, renew
from db.models import JobState, RunState
from db.recovery import repair
from db.results.tables import Temperature
from db.runs import cancel, retry
from db.shares import Turns
from orchestrator.plan.paper import Plan
from orchestrator.plan.spec import resolve
from orchestrator.submit.store import submit
from tasks.code import releases

GRAPH_SEED = 1
ROWS = {Temperature: [{"exit": k, "expert": "pristine", "temperature": 1.5} for k in (1, 2, 3, 4)]}
WORKER = Worker("worker-1", "host-1", 4711, ("sweep 1",))
DONE = Outcome(StoredFile("files/ab/abcd.safetensors", "abcd", 12), ROWS, 1)


@pytest.fixture(scope="session")
def oracle(tmp_path_factory):
    """``oracle(nodes)`` is what these jobs compute where nothing happens to them."""
    return lambda nodes: undisturbed(tmp_path_factory.mktemp("undisturbed"), nodes)


@pytest.fixture
def database_url(new_database):
    """Of these tests: Postgres alone."""
    return new_database


@pytest.fixture
def tries_once(monkeypatch):
    """Controls: no transaction is tried again."""
    return lambda: monkeypatch.setattr(db.engine, "_retryable", lambda error: False)


# ---- Postgres stopped, again and again ----------------------------------------------------------------


def lived_through(cluster, nodes, oracle, stops):
    """Do ``stops`` in their turn while the cluster works; the line that says what came of it."""
    run = cluster.submit(nodes)
    for wait, seconds in stops:
        wait()
        cluster.stop_database()
        time.sleep(seconds)
        cluster.start_database()
    cluster.wait_for(lambda: not cluster.is_active(), "the end of the run")
    assert_invariants(cluster, run, oracle)
    found, stopped = numbers(cluster.engine, run), len(cluster.kills.read())
    return (
        f"attempted={len(nodes)} acknowledged={cluster.finished()} lost={found.lost(oracle)} "
        f"duplicated={found.duplicated(oracle)} attempts={cluster.attempts()} stops={stopped}"
    )


def test_workers_and_reconciler_live_through_a_postgres_that_is_stopped_again_and_again(
    new_cluster, oracle, seed, say
):
    nodes, rng = layered(120, GRAPH_SEED), random.Random(seed)
    cluster = new_cluster("postgresql", Sizes(workers=1), kept=False)

    def until(done):
        return lambda: cluster.wait_for(lambda: cluster.finished() >= done, f"{done} jobs")

    stops = [(until(done), rng.uniform(0, 1.5)) for done in (20, 45, 70, 95)]
    say(f"postgres stopped: {lived_through(cluster, nodes, oracle(nodes), stops)} seed={seed}")
    assert all(member.alive for member in cluster.keeper.members), cluster.logs()


@pytest.mark.storm
@pytest.mark.timeout(0)
def test_a_long_run_lives_through_a_postgres_that_is_away_for_up_to_five_seconds(
    new_cluster, oracle, seed, say, number
):
    nodes, rng = layered(number("CHAOS_JOBS", 6000), GRAPH_SEED), random.Random(seed)
    cluster = new_cluster("postgresql", kept=False)

    def stops():
        """Every 5 to 20 seconds, for 0 to 5, while there is work."""
        while cluster.is_active():
            yield (lambda: time.sleep(rng.uniform(5, 20))), rng.uniform(0, 5)

    say(f"postgres stopped: {lived_through(cluster, nodes, oracle(nodes), stops())} seed={seed}")


IMPATIENT = """
import db.engine
db.engine.PATIENCE_SECONDS = 0.5
db.engine.write.__defaults__ = (0.5,)
"""


@pytest.fixture
def impatient(tmp_path, monkeypatch):
    """Every Python process that is started from here on gives a database up after half a second."""
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_cluster_outlives_a_database_that_is_away_for_longer_than_its_patience(
    new_cluster, impatient, oracle
):
    """Meanwhile commands say in one line that the database is out of reach; one job is held all the time."""
    cluster = new_cluster("postgresql", Sizes(workers=1), kept=False)
    gate = cluster.folder / "gate"
    nodes = [*layered(30, GRAPH_SEED), Node(Link("held", gate=str(gate)), ())]
    run, (reconciler,), (worker,) = cluster.submit(nodes), cluster.reconcilers, cluster.workers
    watching = watch(cluster, run)
    cluster.wait_for(lambda: cluster.finished() >= 30 and "jobs done" in watching.log.read_text(), "30 jobs")
    cluster.stop_database()
    for command in (("status",), ("resume", run), ("cancel", run)):
        refused = cluster.command(*command)
        assert (refused.returncode, refused.stdout) == (4, "")
        assert re.fullmatch(r"error: database.*\n", refused.stderr), refused.stderr
    wait_for(lambda: "waiting: database" in reconciler.log.read_text(), cluster)
    wait_for(lambda: "not renewed, trying again" in worker.log.read_text(), cluster)
    wait_for(lambda: not watching.alive, cluster)
    assert watching.process.returncode == 4
    assert watching.log.read_text().splitlines()[-1].startswith("error: database")
    assert "Traceback" not in watching.log.read_text()
    cluster.start_database()
    gate.touch()
    cluster.wait_for(lambda: not cluster.is_active(), "the end of the run")
    assert_invariants(cluster, run, oracle(nodes))
    assert all(member.alive for member in cluster.keeper.members), cluster.logs()


def watch(cluster, run):
    """``orchestrator resume`` on a cluster of links, which goes on."""
    command = [sys.executable, "-m", "harness.command", "resume", str(run)]
    environment = {**cluster.variables, "PYTHONPATH": cluster._python_path}
    watching = Member("watching", command, environment, cluster.folder)
    cluster.commands.append(watching)
    watching.start()
    return watching


def wait_for(condition, cluster):
    """Without the database, of which ``Cluster.wait_for`` asks whether anything moves."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.05)


def test_a_reconciler_outlives_any_error_of_the_database_and_says_so_once(new_cluster):
    """Its table is gone for a few rounds, which is no error that a transaction is tried again for."""
    cluster = new_cluster("postgresql", Sizes(workers=0), kept=False)
    (reconciler,) = cluster.reconcilers
    rolled_back = text("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()")

    def rounds():
        return cluster.ask(lambda session: session.scalar(rolled_back))

    def rename(old, new):
        write(cluster.engine, lambda session: session.execute(text(f"ALTER TABLE {old} RENAME TO {new}")))

    rename("jobs", "hidden")
    wait_for(lambda: "waiting: relation" in reconciler.log.read_text(), cluster)
    before = rounds()
    wait_for(lambda: rounds() >= before + 3, cluster)
    rename("hidden", "jobs")
    cluster.submit(layered(3, GRAPH_SEED))
    wait_for(lambda: "waiting no longer" in reconciler.log.read_text(), cluster)
    cluster.wait_for(lambda: cluster.states().get(JobState.QUEUED), "a job that is queued")
    said = reconciler.log.read_text().splitlines()
    assert sum('relation "jobs" does not exist' in line for line in said) == 1, said
    assert reconciler.alive


def test_a_statement_after_a_stop_is_tried_again_and_without_that_it_fails(new_postgres, tries_once):
    """The control, and that a database which stays away is out of reach after the patience."""
    server = new_postgres()
    engine = open_engine(server.url("postgres"))

    def ask(session):
        return session.scalar(text("SELECT 1"))

    assert write(engine, ask) == 1
    server.stop()
    with pytest.raises(Unreachable, match=r"^database '.*': connection .*Is it running\?$"):
        write(engine, ask, 0.2)
    starting = threading.Thread(target=server.start)
    starting.start()
    assert write(engine, ask) == 1
    starting.join()
    server.stop()
    tries_once()
    with pytest.raises(OperationalError):
        write(engine, ask)
    engine.dispose()


def test_sessions_that_a_restart_has_closed_are_replaced(new_postgres):
    """Both of the pool, though only one of them is seen to be dead."""
    server, barrier = new_postgres(), threading.Barrier(2)
    engine = open_engine(server.url("postgres"))
    sessions = text("SELECT pg_backend_pid()")

    def together(session):
        barrier.wait(60)
        return session.scalar(sessions)

    before = set(in_threads([lambda: write(engine, together)] * 2))
    assert len(before) == engine.pool.checkedin() == 2
    server.stop()
    server.start()
    after = [write(engine, lambda session: session.scalar(sessions)) for _ in range(2)]
    assert before.isdisjoint(after)
    engine.dispose()


# ---- a commit whose answer is lost --------------------------------------------------------------------


@pytest.fixture
def lose_answer(monkeypatch):
    """``lose_answer()``: the server does the next commit, and the connection is gone before it says so."""
    lost, commit = [], psycopg.Connection.commit

    def commit_and_vanish(connection):
        commit(connection)
        if lost:
            lost.pop()
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(psycopg.Connection, "commit", commit_and_vanish)
    yield lambda: lost.append(True)
    assert not lost, "nothing was committed"


@pytest.fixture
def half_done(add_run):
    """A run in which a is done, b is running, c is ready and d waits for both; and the hold on b."""
    run = add_run({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    run.do("a", DONE.file, ROWS)
    return run, run.claim("b")


def count(engine, table):
    with reading(engine) as session:
        return session.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608  # a name of our own


AMBIGUOUS = {
    "claim": (
        lambda session, run, held: claim(session, run.jobs["c"], WORKER, Turns()),
        "c",
        ("running", 1, 0, 0),
    ),
    "renew": (lambda session, run, held: renew(session, held), "b", ("running", 1, 0, 0)),
    "fail": (lambda session, run, held: fail(session, held, "no", None, retry=True), "b", ("ready", 1, 1, 0)),
    "lose": (lambda session, run, held: lose(session, held, "w"), "b", ("ready", 1, 0, 1)),
    "put_back": (lambda session, run, held: put_back(session, held, "released"), "b", ("ready", 1, 0, 0)),
    "repair": (lambda session, run, held: repair(session, held, held.inputs[0]), "a", ("ready", 1, 0, 0)),
    "top_up": (lambda session, run, held: top_up(session), "c", ("queued", 0, 0, 0)),
    "cancel": (lambda session, run, held: cancel(session, run.id), "b", ("cancelled", 1, 0, 0)),
}
"""What is done; then a job's state, attempt, failures and losses, each once more at the most."""


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_transition_whose_commit_was_not_answered_is_applied_once(name, half_done, engine, lose_answer):
    (run, held), (do, of, expected) = half_done, AMBIGUOUS[name]
    lose_answer()
    write(engine, lambda session: do(session, run, held))
    job = run.job(of)
    assert (job.state, job.attempt, job.failures, job.losses) == expected
    assert [attempt.attempt for attempt in run.attempts("b")] == [1]
    assert count(engine, "artifacts") == 1


def test_a_finish_whose_commit_was_not_answered_writes_and_counts_once(half_done, engine, lose_answer):
    run, held = half_done
    lose_answer()
    write(engine, lambda session: finish(session, held, DONE))
    assert run.states == {
        "a": JobState.SUCCEEDED,
        "b": JobState.SUCCEEDED,
        "c": JobState.READY,
        "d": JobState.WAITING,
    }
    assert run.job("d").waiting_for == 1
    assert (count(engine, "artifacts"), count(engine, "temperatures")) == (2, 8)
    run.do("c")
    run.do("d")
    assert run.state == RunState.SUCCEEDED


def test_a_retry_whose_commit_was_not_answered_brings_jobs_back_once(half_done, engine, lose_answer):
    run, _ = half_done
    write(engine, lambda session: cancel(session, run.id))
    lose_answer()
    write(engine, lambda session: retry(session, run.id))
    assert run.state == RunState.ACTIVE
    assert run.all("waiting_for") == {"a": 0, "b": 0, "c": 0, "d": 2}
    assert run.states == {"a": "succeeded", "b": "ready", "c": "ready", "d": "waiting"}


def test_a_submit_whose_commit_was_not_answered_stores_one_run(add_run, engine, lose_answer):
    add_run({"a": []})  # and with it the dataset
    plan = Plan(releases())
    plan.add(Link("x"), "x", ())
    lose_answer()
    with link.installed():
        submission = submit(engine, resolve("demo", []), plan, 1, "d")
    assert (submission.run_id, submission.attached) == (2, True)
    assert (count(engine, "runs"), count(engine, "jobs")) == (2, 2)


def test_a_naive_counter_whose_commit_was_not_answered_counts_twice(engine, numbers_table, lose_answer):
    """The control: what is not guarded."""
    lose_answer()
    write(engine, lambda session: session.execute(text("UPDATE n SET n = n + 1 WHERE id = 1")))
    assert values(engine) == [2, 0]


# ---- deadlocks and serialization failures -------------------------------------------------------------


@pytest.fixture
def numbers_table(engine):
    """Two rows, both 0."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE n (id int PRIMARY KEY, n int)"))
        connection.execute(text("INSERT INTO n VALUES (1, 0), (2, 0)"))


def values(engine):
    with reading(engine) as session:
        return list(session.scalars(text("SELECT n FROM n ORDER BY id")))


def in_threads(functions):
    """Call all at the same time; what each returned, or raised."""
    answers = [None] * len(functions)

    def work(place):
        try:
            answers[place] = functions[place]()
        except DBAPIError as error:
            answers[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def crossing(engine):
    """Two transactions that lock two rows in opposite orders, each waiting for the other in its first try."""
    barrier = threading.Barrier(2)

    def add(rows):
        tries = itertools.count()

        def change(session):
            first = next(tries) == 0
            for place, row in enumerate(rows):
                if place and first:
                    barrier.wait(60)
                session.execute(text("UPDATE n SET n = n + 1 WHERE id = :row"), {"row": row})

        return lambda: write(engine, change)

    return [add((1, 2)), add((2, 1))]


def deadlocks(engine):
    """What the server has counted; a session of its own has reported by the time it ends."""
    with reading(engine) as session:
        counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return session.scalar(text(counted))


def test_two_transactions_that_deadlock_both_happen_once(engine, numbers_table):
    assert in_threads(crossing(engine)) == [None, None]
    assert values(engine) == [2, 2]
    engine.dispose()  # ended sessions have said what they saw
    deadline = time.monotonic() + 60
    while not deadlocks(engine):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_second_try_one_of_two_that_deadlock_fails(engine, numbers_table, tries_once):
    """The control."""
    tries_once()
    failed = [error for error in in_threads(crossing(engine)) if error is not None]
    assert [error.orig.sqlstate for error in failed] == ["40P01"]
    assert values(engine) == [1, 1]


def same_row(engine):
    """Two serializable transactions that read a number before either has written it, in their first try."""
    barrier, serializable = threading.Barrier(2), engine.execution_options(isolation_level="SERIALIZABLE")

    def add():
        tries = itertools.count()

        def change(session):
            n = session.scalar(text("SELECT n FROM n WHERE id = 1"))
            if next(tries) == 0:
                barrier.wait(60)
            session.execute(text("UPDATE n SET n = :n WHERE id = 1"), {"n": n + 1})

        return lambda: write(serializable, change)

    return [add(), add()]


def test_two_transactions_that_cannot_be_serialized_both_happen_once(engine, numbers_table):
    assert in_threads(same_row(engine)) == [None, None]
    assert values(engine) == [2, 0]


def test_without_a_second_try_one_of_two_that_cannot_be_serialized_fails(engine, numbers_table, tries_once):
    """The control."""
    tries_once()
    failed = [error for error in in_threads(same_row(engine)) if error is not None]
    assert [error.orig.sqlstate for error in failed] == ["40001"]
    assert values(engine) == [1, 0]


def test_parents_that_know_their_children_in_opposite_orders_finish_at_once(add_run, engine):
    """Eight threads, four rounds: every child is counted once per parent."""
    parents, children = [f"p{i}" for i in range(8)], [f"c{i}" for i in range(10)]
    for _ in range(4):
        run = add_run({**dict.fromkeys(parents, ()), **dict.fromkeys(children, ())})
        with engine.begin() as connection:
            for number, parent in enumerate(parents):
                for child in children if number % 2 else reversed(children):
                    ids = {"child": run.jobs[child], "parent": run.jobs[parent], "number": number}
                    connection.execute(text(EDGE), ids)
        for child in children:
            run.set(child, state=JobState.WAITING, waiting_for=len(parents))
        held = [run.claim(parent) for parent in parents]
        assert in_threads([partial(run.finish, each) for each in held]) == [True] * 8
        assert {name: run.states[name] for name in children} == dict.fromkeys(children, JobState.READY)
        assert set(run.all("waiting_for").values()) == {0}
        write(engine, lambda session, run=run: cancel(session, run.id))
        write(engine, lambda session: session.execute(text("UPDATE artifacts SET key = key || ':' || id")))


EDGE = (
    "INSERT INTO job_dependencies (child_id, parent_id, position, reads) "
    "VALUES (:child, :parent, :number, true)"
)


# ---- SQLite -------------------------------------------------------------------------------------------

WRITERS = """
import os
import random
import sys
import time
from sqlalchemy import select
from db.dispatch import top_up
from db.engine import open_engine, reading, write
from db.claims import claim
from db.jobs import Outcome, Worker, finish
from db.models import Job, JobState, Run, RunState
from db.shares import Turns
from db.results.tables import Temperature
from db.shares import Turns

ROWS = {Temperature: [{"exit": k, "expert": "pristine", "temperature": 1.0} for k in (1, 2, 3, 4)]}


def work(engine, me):
    turns = Turns()
    while True:
        with reading(engine) as session:
            active = session.scalar(select(Run.id).where(Run.state == RunState.ACTIVE))
            ready = select(Job.id).where(Job.state.in_((JobState.READY, JobState.QUEUED)))
            jobs = session.scalars(ready).all()
        if active is None:
            return
        held = write(engine, lambda session: claim(session, random.choice(jobs), me, turns)) if jobs else None
        if held is None:
            time.sleep(0.02)
            continue
        print(write(engine, lambda session: finish(session, held, Outcome(None, ROWS, 1))), flush=True)
        write(engine, top_up)


children = []
for i in range(32):
    child = os.fork()
    if child == 0:
        work(open_engine(sys.argv[1]), Worker(f"cpu-{i}", "host", os.getpid(), ("sweep 1",)))
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


class TestSqlite:
    """One writer at a time, and everyone waits for it."""

    @pytest.fixture
    def database_url(self, sqlite_template, tmp_path):
        """Of these tests: SQLite alone."""
        (tmp_path / "database.sqlite").write_bytes(sqlite_template.read_bytes())
        return f"sqlite:///{tmp_path / 'database.sqlite'}"

    def test_32_processes_write_and_none_finds_the_database_locked(self, add_run, engine, database_url):
        layers = [[f"{layer}.{i}" for i in range(16)] for layer in range(4)]
        graph = {name: [] for name in layers[0]}
        for above, below in itertools.pairwise(layers):
            graph |= {name: above[i % 4 :: 4] for i, name in enumerate(below)}  # four parents each
        run = add_run(graph)
        command = [sys.executable, "-c", WRITERS, database_url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["True"] * 64
        assert run.state == RunState.SUCCEEDED
        assert [count(engine, table) for table in ("attempts", "artifacts", "temperatures")] == [64, 64, 256]

    def test_a_transaction_that_begins_without_the_lock_finds_the_database_locked(
        self, engine, numbers_table, tries_once, monkeypatch
    ):
        """The control: BEGIN instead of BEGIN IMMEDIATE, and a read before the write."""
        monkeypatch.setattr(db.engine, "WRITING", {"sqlite": "BEGIN"})
        tries_once()
        barrier = threading.Barrier(2)

        def change(session):
            n = session.scalar(text("SELECT n FROM n WHERE id = 1"))
            barrier.wait(60)
            session.execute(text("UPDATE n SET n = :n WHERE id = 1"), {"n": n + 1})

        failed = [error for error in in_threads([lambda: write(engine, change)] * 2) if error is not None]
        assert [str(error.orig) for error in failed] == ["database is locked"]
        assert values(engine) == [1, 0]

    def test_with_the_lock_taken_at_the_beginning_both_are_written(self, engine, numbers_table):
        def change(session):
            n = session.scalar(text("SELECT n FROM n WHERE id = 1"))
            session.execute(text("UPDATE n SET n = :n WHERE id = 1"), {"n": n + 1})

        assert in_threads([lambda: write(engine, change)] * 32) == [None] * 32
        assert values(engine) == [32, 0]
