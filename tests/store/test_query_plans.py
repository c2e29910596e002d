"""No statement of the engine reads a growing table from end to end: its plans on a database with many old jobs."""

import re
import sqlite3

import psycopg
import pytest
from sqlalchemy import event, text

from db.artifacts import StoredFile
from db.claims import claim, claim_next, others_on_host, why_not
from db.dispatch import forget_rings, has_silent, ring_again, top_up
from db.engine import write
from db.graph import recount
from db.jobs import Outcome, Worker, fail, finish, lose, put_back, renew, saved_progress
from db.models import Job, JobState
from db.recovery import busy_workers, expire, has_artifact, is_dead, release_worker, repair
from db.runs import active_runs, cancel, progress, retry, settle_run, torn_runs, working_runs
from db.shares import Turns

WORKER = Worker("worker-1", "host-1", 4711, ("sweep 1",))
OLD_RUNS, JOBS_EACH = 20, 1000
GROWING = ("jobs", "job_dependencies", "attempts", "artifacts", "temperatures")
SMALL = {
    index.name for index in Job.__table__.indexes if index.dialect_options["sqlite"]["where"] is not None
}
"""Indices whose size follows what is going on and not what is stored."""
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
PAST = (
    "INSERT INTO artifacts (id, key, stage, bytes, created_at) {numbers} "
    "SELECT {first} + i, 'old-' || ({first} + i), 'sweep', 0, 1 FROM n",
    "INSERT INTO jobs (id, run_id, stage, label, key, code, params, queue, state, cached, artifact_id, "
    "waiting_for, attempt, failures, losses, deadline_seconds) {numbers} "
    "SELECT {first} + i, {run}, 'sweep', 'old', 'old-' || ({first} + i), 'sweep 1', '{{}}', 'cpu', 'succeeded', "
    "false, {first} + i, 0, 1, 0, 0, 600 FROM n",
    "INSERT INTO attempts (job_id, attempt, worker, host, process, started_at, finished_at, outcome) {numbers} "
    "SELECT {first} + i, 1, 'worker-1', 'host-1', 4711, 1, 2, 'succeeded' FROM n",
    "INSERT INTO job_dependencies (child_id, parent_id, position, reads) {numbers} "
    "SELECT {first} + i, {first} + i - 1, 0, true FROM n WHERE i > 1",
)
OUTCOME = Outcome(StoredFile("files/ab/abcd.safetensors", "abcd", 12), {}, 1)


@pytest.fixture
def run(add_run, engine):
    """An active run beside many that have ended, in a database that knows what it holds, as Postgres does."""
    for number in range(OLD_RUNS):
        old = add_run({}, state="succeeded", finished_at=2.0)
        first = 1_000_000 + number * JOBS_EACH
        values = {"numbers": NUMBERS.format(count=JOBS_EACH), "first": first, "run": old.id}
        for statement in PAST:
            sql = statement.format(**values)
            write(engine, lambda session, sql=sql: session.execute(text(sql)))
    leaves = [f"leaf-{i}" for i in range(12)]
    run = add_run({**{leaf: [] for leaf in leaves}, "join": leaves, "end": ["join"]})
    if engine.dialect.name == "postgresql":
        # SQLite's planner is told nothing by the product either
        write(engine, lambda session: session.execute(text("ANALYZE")))
    return run


@pytest.fixture
def plans(engine, database_url):
    """``plans(function)`` runs it in a transaction; what its statements read from end to end, by statement."""
    if engine.dialect.name == "postgresql":
        planner, explain = psycopg.connect(database_url, autocommit=True), "EXPLAIN "
    else:
        # one without foreign keys, whose checks its plans show, too: they read only where one is broken
        planner, explain = sqlite3.connect(engine.url.database), "EXPLAIN QUERY PLAN "
    seen = {}

    @event.listens_for(engine, "before_cursor_execute")
    def look(connection, cursor, statement, parameters, context, many):
        if not many and statement.startswith(("SELECT", "UPDATE", "INSERT", "WITH", "DELETE")):
            rows = [str(row[-1]) for row in planner.execute(explain + statement, parameters).fetchall()]
            if scans := [row.strip() for row in rows if is_full_scan(row)]:
                seen[statement] = scans

    def act(function):
        seen.clear()
        write(engine, function)
        return dict(seen)

    yield act
    planner.close()


def is_full_scan(row):
    """Of a line of either database's plan."""
    scan = re.search(r"Seq Scan on (\w+)|SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", row)
    if scan is None or scan[3] in SMALL:
        return False
    return re.sub(r"_\d+$", "", scan[1] or scan[2]) in GROWING


def hold(run, leaf):
    return run.claim(f"leaf-{leaf}")


VERBS = {
    "claim": lambda run: lambda s: claim(s, run.jobs["leaf-0"], WORKER, Turns()),
    "why not": lambda run: lambda s: why_not(s, run.jobs["leaf-0"], WORKER),
    "others": lambda run: (held := hold(run, 0)) and (lambda s: others_on_host(s, held, WORKER)),
    "renew": lambda run: (held := hold(run, 0)) and (lambda s: renew(s, held)),
    "progress": lambda run: (held := hold(run, 0)) and (lambda s: saved_progress(s, held)),
    "finish": lambda run: (held := hold(run, 0)) and (lambda s: finish(s, held, OUTCOME)),
    "fail": lambda run: (held := hold(run, 0)) and (lambda s: fail(s, held, "no", None, retry=False)),
    "retry later": lambda run: (held := hold(run, 0)) and (lambda s: fail(s, held, "no", None, retry=True)),
    "put back": lambda run: (held := hold(run, 0)) and (lambda s: put_back(s, held, "released")),
    "lose": lambda run: (held := hold(run, 0)) and (lambda s: lose(s, held, "w")),
    "top up": lambda run: top_up,
    "has silent": lambda run: lambda s: has_silent(s, 10),
    "ring again": lambda run: lambda s: ring_again(s, 10),
    "forget rings": lambda run: forget_rings,
    "expire": lambda run: hold(run, 0) and expire,
    "release worker": lambda run: hold(run, 0) and (lambda s: release_worker(s, WORKER.name, charged=True)),
    "busy workers": lambda run: hold(run, 0) and busy_workers,
    "settle": lambda run: lambda s: settle_run(s, run.id),
    "recount": lambda run: lambda s: recount(s, run.id),
    "active runs": lambda run: active_runs,
    "torn runs": lambda run: torn_runs,
    "working runs": lambda run: lambda s: working_runs(s, WORKER.codes),
    "progress of a run": lambda run: lambda s: progress(s, run.id),
    "cancel": lambda run: lambda s: cancel(s, run.id),
    "is dead": lambda run: lambda s: is_dead(s, run.jobs["leaf-0"], 1),
    "has artifact": lambda run: lambda s: has_artifact(s, "key-leaf-0"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_reads_a_growing_table_from_end_to_end(verb, run, plans):
    assert plans(VERBS[verb](run)) == {}


def test_the_next_claim_does_not_either(run, plans, engine):
    held, turns = hold(run, 0), Turns()
    write(engine, turns.look)
    assert plans(lambda session: claim_next(session, held, WORKER, turns)) == {}


def test_a_repair_does_not_either(run, plans):
    for leaf in range(12):
        run.do(f"leaf-{leaf}")
    held = run.claim("join")
    assert plans(lambda session: repair(session, held, held.inputs[0])) == {}


def test_a_retry_does_not_either(run, plans):
    run.fail(hold(run, 0))
    for leaf in range(1, 12):
        run.do(f"leaf-{leaf}")
    assert run.states["end"] == JobState.SKIPPED
    assert plans(lambda session: retry(session, run.id)) == {}


def test_a_scan_is_seen(run, plans):
    """The control."""
    assert plans(lambda session: session.execute(text("SELECT label FROM jobs WHERE label = 'x'")))
