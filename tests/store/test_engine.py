"""What an engine asks of its database: how long commits, locks and silent transactions may take."""

import pytest
from sqlalchemy import text

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


class TestSqlite:
    @pytest.fixture
    def database_url(self, tmp_path):
        return f"sqlite:///{tmp_path / 'database.sqlite'}"

    def test_commits_wait_for_the_disk_unless_told_otherwise(self, setting):
        full, normal = "2", "1"
        assert setting("synchronous") == full
        assert setting("synchronous", durable=False) == normal
