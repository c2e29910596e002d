"""`orchestrator sql` reads and does nothing else, on SQLite and on Postgres."""

import hashlib
import uuid
from pathlib import Path

import pytest

from db.engine import open_engine, reading
from db.models import Run
from orchestrator.errors import UsageError
from orchestrator.results.sql import query

WRITING = [
    "INSERT INTO runs (id) VALUES (9)",
    "UPDATE runs SET plan = 'x'",
    "DELETE FROM runs",
    "DROP TABLE runs",
    "CREATE TABLE mine (a int)",
    "CREATE TEMP TABLE mine (a int)",
    "CREATE VIEW mine AS SELECT 1",
    "ALTER TABLE runs ADD COLUMN mine int",
    "SELECT 1; DELETE FROM runs",
    "BEGIN",
    "COMMIT",
    "COMMIT; DELETE FROM runs",
    "VACUUM",
]
ONLY_SQLITE = [
    "WITH gone AS (SELECT 1) DELETE FROM runs",
    "REPLACE INTO runs (id) VALUES (9)",
    "ATTACH '{folder}/other.db' AS other",
    "ATTACH '{database}' AS again",
    "VACUUM INTO '{folder}/copy.db'",
    "PRAGMA writable_schema = 1",
    "PRAGMA query_only = 0",
    "PRAGMA journal_mode = DELETE",
    "SELECT load_extension('{folder}/extension')",
    "SAVEPOINT mine",
    "REINDEX",
    "ANALYZE",
]
ONLY_POSTGRES = [
    "WITH gone AS (DELETE FROM runs RETURNING id) SELECT * FROM gone",
    "SELECT lo_create(4711)",
    "SELECT nextval('runs_id_seq')",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SET TRANSACTION READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "TRUNCATE runs CASCADE",
    "COPY runs FROM PROGRAM 'echo 1'",
    "COPY (SELECT 1) TO '/tmp/{unique}'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/{unique}'",
    "DO $$ BEGIN DELETE FROM runs; END $$",
    "CALL pg_terminate_backend(0)",
    "LOCK TABLE runs",
    "EXPLAIN ANALYZE DELETE FROM runs",
    "SELECT * FROM runs FOR UPDATE",
    "SELECT 1 INTO mine",
    "NOTIFY mine",
    "/* /* */ SELECT 1 */ COPY (SELECT 1) TO '/tmp/{unique}'",
]


@pytest.fixture
def stored(add_run, engine):
    """A database with one run in it."""
    add_run({"a": []})
    return engine


def refused(engine, statement):
    with pytest.raises(UsageError) as raised:
        query(engine, statement)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("sql: ")


def state_of(engine):
    with reading(engine) as session:
        return [(run.id, run.plan, run.state) for run in session.query(Run)]


def contents(folder):
    """Digest of each file of a folder, once whatever was left to be written into the database is in it."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("statement", WRITING)
def test_a_statement_that_writes_is_refused(stored, statement):
    before = state_of(stored)
    refused(stored, statement)
    assert state_of(stored) == before


@pytest.fixture
def sqlite_file(sqlite_template, tmp_path):
    """A SQLite database alone in its folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    path = folder / "orchestrator.db"
    path.write_bytes(sqlite_template.read_bytes())
    query(open_engine(f"sqlite:///{path}"), "SELECT 1 FROM runs")  # leaves what every reader leaves
    return path


@pytest.mark.parametrize("statement", [*WRITING, *ONLY_SQLITE])
def test_no_statement_changes_the_file_or_writes_another(sqlite_file, statement):
    before = contents(sqlite_file.parent)
    refused(
        open_engine(f"sqlite:///{sqlite_file}"),
        statement.format(folder=sqlite_file.parent, database=sqlite_file),
    )
    assert contents(sqlite_file.parent) == before


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("statement", ONLY_POSTGRES)
def test_no_statement_writes_into_postgres_or_its_servers_files(stored, statement):
    written = Path("/tmp", f"attack-{uuid.uuid4().hex}")
    before = state_of(stored)
    refused(stored, statement.format(unique=written.name))
    assert not written.exists()
    assert state_of(stored) == before


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SELECT id, plan FROM runs", [(1, "full-paper")]),
        ("  -- a comment\n select count(*) from jobs;  ", [(1,)]),
        ("/* two */ WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) "
         "SELECT sum(i) FROM n", [(6,)]),
        ("VALUES (1, 'a;b')", [(1, "a;b")]),
        ("SELECT '100 %', ':x' WHERE 'a' LIKE '%a'", [("100 %", ":x")]),
    ],
)  # fmt: skip
def test_a_statement_that_reads_is_answered(stored, statement, rows):
    assert query(stored, statement).rows == rows


def test_a_statement_that_is_wrong_is_answered_in_one_line(stored):
    refused(stored, "SELECT nothing FROM nowhere")
    refused(stored, "")
