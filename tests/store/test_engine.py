"""What an engine asks of its database, and what it tries again."""

import itertools
import resource
import sqlite3

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError

import db.engine
from db.engine import STUCK_SECONDS, open_engine, read, reading, write
from db.limits import LEASE_SECONDS


@pytest.fixture
def setting(database_url):
    """``setting(name, durable=False)`` is what a transaction of a new engine runs with."""
    ask = "PRAGMA {}" if database_url.startswith("sqlite") else "SHOW {}"

    def look(name, **options):
        engine = open_engine(database_url, **options)
        answer = write(engine, lambda session: session.scalar(text(ask.format(name))))
        engine.dispose()
        return str(answer)

    return look


@pytest.fixture
def tries_once(monkeypatch):
    """Controls: no transaction is tried again."""
    return lambda: monkeypatch.setattr(db.engine, "_retryable", lambda error: False)


class TestPostgres:
    @pytest.fixture
    def database_url(self, postgres):
        return postgres.format(name="postgres")

    def test_commits_wait_for_the_disk_unless_told_otherwise(self, setting):
        assert setting("synchronous_commit") == "on"
        assert setting("synchronous_commit", durable=False) == "off"

    @pytest.mark.parametrize("name", ["lock_timeout", "idle_in_transaction_session_timeout"])
    def test_nobody_waits_for_a_silent_transaction_for_as_long_as_a_lease(self, setting, name):
        assert setting(name) == f"{STUCK_SECONDS:.0f}s"
        assert STUCK_SECONDS < LEASE_SECONDS

    def test_what_the_url_says_stays(self, database_url):
        engine = open_engine(f"{database_url}&options=-c%20lock_timeout%3D7s&target_session_attrs=any")
        assert read(engine, lambda session: session.scalar(text("SHOW lock_timeout"))) == "7s"
        engine.dispose()

    def test_a_session_that_reads_leaves_no_isolation_behind(self, database_url):
        engine = open_engine(database_url)
        level = text("SHOW transaction_isolation")
        with reading(engine) as session:
            assert session.scalar(level) == "repeatable read"
        assert write(engine, lambda session: session.scalar(level)) == "read committed"
        assert engine.pool.checkedin() == 1
        engine.dispose()

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me@/runs?host=one:5432&host=two:5433",
            "postgresql://me@/runs?host=one,two&port=5432,5433",
        ],
    )
    def test_a_url_may_name_several_hosts(self, url):
        engine = open_engine(url)
        _, arguments = engine.dialect.create_connect_args(engine.url)
        assert (arguments["host"], arguments["port"]) == ("one,two", "5432,5433")

    @pytest.mark.parametrize("sqlstate", ["25006", "53100", "53200", "57014"])
    def test_what_passes_by_itself_is_tried_again(self, database_url, open_database, sqlstate):
        """A server that is a standby now, whose disk or memory is full, and a statement that was cancelled."""
        tries = itertools.count()

        def once(session):
            if next(tries) == 0:
                session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"))

        write(open_database(database_url), once)
        assert next(tries) == 2

    def test_what_does_not_pass_is_raised_at_once(self, database_url, open_database):
        tries = itertools.count()

        def divide(session):
            next(tries)
            session.execute(text("SELECT 1 / 0"))

        with pytest.raises(DBAPIError, match="division by zero"):
            write(open_database(database_url), divide)
        assert next(tries) == 1

    def test_sessions_on_a_server_that_only_reads_are_left(self, database_url, open_database):
        sessions = []

        def change(session):
            sessions.append(session.scalar(text("SELECT pg_backend_pid()")))
            if len(sessions) == 1:
                session.execute(text("SET TRANSACTION READ ONLY"))
            session.execute(text("CREATE TEMPORARY TABLE t (n int)"))

        write(open_database(database_url), change)
        first, second = sessions
        assert first != second

    def test_a_transaction_that_was_silent_for_too_long_is_tried_again(self, database_url, open_database):
        short = "options=-c%20idle_in_transaction_session_timeout%3D50"
        engine, observer = open_database(f"{database_url}&{short}"), open_database(database_url)
        lives = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        pids = []

        def pause(session):
            pids.append(session.scalar(text("SELECT pg_backend_pid()")))
            if len(pids) == 1:
                while read(observer, lambda other: other.scalar(lives, {"pid": pids[0]})):
                    pass
            return session.scalar(text("SELECT 1"))

        assert write(engine, pause) == 1
        assert len(set(pids)) == 2

    def test_a_server_without_room_for_a_session_is_asked_again(self, database_url, open_database):
        """Two sessions where one is allowed: the second waits until the first is closed."""
        with psycopg.connect(database_url, autocommit=True) as administrator:
            administrator.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1")
        narrow = database_url.replace("postgres@", "narrow@")
        first, second = open_database(narrow), open_database(narrow)
        holder, tries = first.connect(), itertools.count()

        @event.listens_for(second, "do_connect")
        def let_go(*_):
            if next(tries) == 2:
                holder.close()
                first.dispose()

        assert write(second, lambda session: session.scalar(text("SELECT 1"))) == 1
        assert next(tries) > 2


class TestSqlite:
    @pytest.fixture
    def database_url(self, tmp_path):
        return f"sqlite:///{tmp_path / 'database.sqlite'}"

    def test_commits_wait_for_the_disk_unless_told_otherwise(self, setting):
        full, normal = "2", "1"
        assert setting("synchronous") == full
        assert setting("synchronous", durable=False) == normal

    @pytest.fixture
    def impatient(self, database_url, open_database, monkeypatch):
        """An engine on a table ``n`` whose writers wait for a hundredth of a second before they begin anew."""
        monkeypatch.setattr(db.engine, "BUSY_SECONDS", 0.01)
        engine = open_database(database_url)
        write(engine, lambda session: session.execute(text("CREATE TABLE n (n)")))
        return engine

    @pytest.fixture
    def hindered(self, database_url, impatient):
        """``hindered(how)`` inserts a row where the first tries meet a locked, a full or a broken file."""
        holder, tries = sqlite3.connect(database_url.removeprefix("sqlite:///")), itertools.count()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)

        @event.listens_for(impatient, "handle_error")
        def look(_):
            if next(tries) == 1:
                holder.rollback()

        def insert(session, how):
            first = next(tries) == 0
            if how == "full":
                session.execute(text(f"PRAGMA max_page_count = {2 if first else 1000}"))
            if how == "broken":
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 if first else limit[0], limit[1]))
            session.execute(text("INSERT INTO n VALUES (zeroblob(10000))"))

        def act(how):
            if how == "locked":
                holder.execute("BEGIN IMMEDIATE")
            write(impatient, lambda session: insert(session, how))

        yield act
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        holder.close()

    HINDRANCES = ("locked", "full", "broken")

    @pytest.mark.parametrize("how", HINDRANCES)
    def test_what_passes_by_itself_is_tried_again(self, hindered, impatient, how):
        hindered(how)
        assert read(impatient, lambda session: session.scalar(text("SELECT count(*) FROM n"))) == 1

    @pytest.mark.parametrize("how", HINDRANCES)
    def test_without_a_second_try_it_fails(self, hindered, tries_once, how):
        """The control."""
        tries_once()
        with pytest.raises(OperationalError, match=r"locked|full|disk I/O error"):
            hindered(how)
