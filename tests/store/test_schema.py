"""The migrated schema is that of the models; other databases are refused in one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import column, inspect, literal_column, select, table, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

import db.schema
from db.engine import DatabaseError, open_engine, write
from db.models import Base
from db.results.views import VIEWS
from db.schema import HEAD, upgrade


def constraints(engine):
    """Every check, unique key, foreign key and index by table; alembic compares no checks and no predicates."""
    inspector = inspect(engine)
    found = {}
    for name in inspector.get_table_names():
        if name == "alembic_version":
            continue
        indexes = inspector.get_indexes(name)
        found[name] = {
            "checks": sorted(check["sqltext"] for check in inspector.get_check_constraints(name)),
            "primary key": inspector.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted(key["column_names"] for key in inspector.get_unique_constraints(name)),
            "foreign keys": sorted(
                (key["constrained_columns"], key["referred_table"], key["options"])
                for key in inspector.get_foreign_keys(name)
            ),
            "indexes": sorted(
                (index["name"], index["column_names"], bool(index["unique"]), predicate(index))
                for index in indexes
            ),
        }
    return found


def predicate(index):
    return {name: str(value) for name, value in index.get("dialect_options", {}).items() if "where" in name}


def test_the_migrated_schema_is_that_of_the_models(engine):
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_migration_makes_the_same_constraints_as_the_models(engine):
    migrated = constraints(engine)
    execute(engine, *(f"DROP VIEW {view}" for view in reversed(VIEWS)))
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    assert constraints(engine) == migrated
    assert migrated["artifacts"]["unique"] == [["key"]]


def test_head_is_the_newest_revision():
    folder = Path(db.schema.__file__).parent / "migrations"
    assert ScriptDirectory(folder).get_heads() == [HEAD]


def test_every_view_can_be_read_from_an_empty_database(engine):
    for view in VIEWS:
        with engine.connect() as connection:
            rows = connection.execute(select(literal_column("*")).select_from(table(view))).all()
        assert rows == ([(None,)] if view == "latest_run" else [])


def test_upgrading_twice_changes_nothing(empty_engine):
    upgrade(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO artifacts VALUES (1, 'k', 'sweep', NULL, NULL, 0, 0.0)"))
    upgrade(empty_engine)
    with empty_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM artifacts")) == 1
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == HEAD


UPGRADES = """
import os
import sys
from db.engine import open_engine
from db.schema import upgrade

read, start = os.pipe()
children = []
for _ in range(12):
    child = os.fork()
    if child == 0:
        os.close(start)
        os.read(read, 1)  # until the parent closes its end: all at once
        upgrade(open_engine(sys.argv[1]))
        sys.exit()
    children.append(child)
os.close(start)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_processes_may_upgrade_at_the_same_time(empty_database_url, open_database):
    command = [sys.executable, "-c", UPGRADES, empty_database_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open_database(empty_database_url).connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [(HEAD,)]


# ---- refused in one line ------------------------------------------------------------------------------


def refusal(engine):
    with pytest.raises(DatabaseError) as caught:
        upgrade(engine)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("database '")
    return message


def execute(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_newer_database_is_refused(engine):
    execute(engine, "UPDATE alembic_version SET version_num = '9999'")
    assert "schema 9999 is none of this code's" in refusal(engine)


@pytest.mark.parametrize("revision", ["1975ea83b712", "0000ea83b712"])
def test_another_programs_migrated_database_is_refused(empty_engine, revision):
    execute(
        empty_engine,
        f"CREATE TABLE alembic_version AS SELECT '{revision}' AS version_num",
        "CREATE TABLE customers (id INTEGER)",
    )
    assert revision in refusal(empty_engine)
    with empty_engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == revision
        assert set(inspect(connection).get_table_names()) == {"alembic_version", "customers"}


def test_a_database_with_other_tables_is_refused_and_left_as_it_is(empty_engine):
    execute(empty_engine, "CREATE TABLE customers (id INTEGER)")
    assert "it holds other tables (customers" in refusal(empty_engine)
    assert inspect(empty_engine).get_table_names() == ["customers"]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path, open_database):
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 100)
    assert "not a database" in refusal(open_database(f"sqlite:///{path}"))
    assert path.read_text() == "Dear diary, " * 100


def test_a_truncated_database_is_refused(sqlite_template, tmp_path, open_database):
    path = tmp_path / "database.sqlite"
    shutil.copy(sqlite_template, path)
    with path.open("r+b") as file:
        file.truncate(6000)
    refusal(open_database(f"sqlite:///{path}"))


def test_a_folder_that_is_not_there_is_refused(tmp_path, open_database):
    assert "unable to open database file" in refusal(open_database(f"sqlite:///{tmp_path}/no/such/database"))


def test_a_server_that_does_not_answer_is_no_wrong_database(tmp_path, open_database):
    """The command line tells them apart by its exit code."""
    with pytest.raises(OperationalError) as refused:
        upgrade(open_database(f"postgresql://postgres:secret@/db?host={tmp_path}"))
    assert "secret" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "orchestrator.db",
        "a:b",
        "oracle://host/name",
        "mysql://u:secret@host/name",
        "postgresql://u:secret@host:port/name",
        "postgresql+nodriver://u:secret@host/name",
        "sqlite+nodriver:///path",
    ],
)
def test_an_address_of_no_known_database_is_refused(url):
    with pytest.raises(DatabaseError) as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgres_is_known_by_its_usual_names(scheme):
    assert open_engine(f"{scheme}://postgres@host/name").dialect.driver == "psycopg"


# ---- what the database refuses ------------------------------------------------------------------------


def test_sqlite_is_durable_and_checks_foreign_keys(tmp_path, open_database):
    with open_database(f"sqlite:///{tmp_path}/database").connect() as connection:
        pragmas = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2: FULL


@pytest.mark.parametrize(
    "columns",
    [
        {"state": "running"},  # without a lease
        {"state": "ready", "lease_until": 1.0},
        {"state": "ready", "waiting_for": 1},
        {"waiting_for": -1},
        {"state": "failed"},  # without saying why
        {"state": "asleep"},
    ],
)
def test_the_database_refuses_a_job_that_contradicts_itself(add_run, engine, columns):
    run = add_run({"a": []})
    jobs = table("jobs", column("id"), *(column(name) for name in columns))
    statement = update(jobs).where(jobs.c.id == run.jobs["a"]).values(**columns)
    with pytest.raises(IntegrityError, match=r"(?i)check constraint"):
        write(engine, lambda session: session.execute(statement))


def test_one_identity_has_one_active_run(add_run):
    add_run({"a": []}, identity="same", state="succeeded", finished_at=1.0)
    add_run({"a": []}, identity="same")
    with pytest.raises(IntegrityError, match=r"(?i)unique"):
        add_run({"a": []}, identity="same")
