"""Failover: a standby takes over, or the primary only reads; what runs goes on, nothing is lost or doubled."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.cluster import Cluster, Sizes
from harness.graph import layered
from harness.oracle import assert_invariants, numbers, undisturbed
from harness.pair import Pair
from harness.postgres import PostgresServer
from sqlalchemy import text

import db.engine
from db.engine import Unreachable, open_engine, write

GRAPH_SEED = 1


@pytest.fixture
def pair(postgres_programs):
    """A primary and its standby, both of the test's own."""
    with ExitStack() as stack:
        servers = [
            PostgresServer(postgres_programs, Path(tempfile.mkdtemp(prefix="postgres-"))) for _ in range(2)
        ]
        primary, standby = servers
        for server in servers:
            stack.callback(server.remove)
        primary.create()
        primary.start()
        standby.follow(primary)
        standby.start()
        yield Pair(primary, standby)


@pytest.fixture
def cluster(pair):
    """A cluster on both, under one address."""
    folder = Path(tempfile.mkdtemp(prefix="c-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        yield stack.enter_context(Cluster(folder, pair, Sizes(workers=1), kept=False))


def goes_on(cluster, nodes, oracle, take_over):
    """Let ``take_over`` happen once 40 jobs are done; the line that says what came of it."""
    run = cluster.submit(nodes)
    cluster.wait_for(lambda: cluster.finished() >= 40, "40 jobs")
    forgotten = take_over()
    cluster.wait_for(lambda: not cluster.is_active(), "the end of the run")
    assert_invariants(cluster, run, oracle)
    assert all(member.alive for member in cluster.keeper.members), cluster.logs()
    found = numbers(cluster.engine, run)
    lost, duplicated = found.lost(oracle), found.duplicated(oracle)
    return f"attempted={len(nodes)} forgotten={forgotten} lost={lost} duplicated={duplicated}"


def test_a_run_goes_on_where_a_standby_takes_over_that_is_behind(cluster, pair, tmp_path, say):
    """What the standby never heard of is done again: the same files, the same rows, each once."""
    nodes = layered(160, GRAPH_SEED)

    def lose_primary():
        pair.hold_back()
        done = cluster.finished()
        cluster.wait_for(lambda: cluster.finished() >= done + 20, "20 jobs that only the primary knows")
        done = cluster.finished()
        pair.fail_over()
        forgotten = done - cluster.finished()
        assert forgotten > 0
        return forgotten

    say(f"failover: {goes_on(cluster, nodes, undisturbed(tmp_path, nodes), lose_primary)}")


def test_a_run_goes_on_where_the_primary_only_reads(cluster, pair, tmp_path, say):
    """Its sessions stay, and so do those that workers hold."""
    nodes = layered(120, GRAPH_SEED)

    def demote():
        pair.demote()
        cluster.engine.dispose()  # this process only reads, and would see the old primary for a minute
        return 0

    say(f"read-only primary: {goes_on(cluster, nodes, undisturbed(tmp_path, nodes), demote)}")


CREATE = text("CREATE TABLE n (n int)")


def test_a_session_leaves_a_server_that_only_reads(pair):
    engine = open_engine(pair.url("postgres"))
    write(engine, lambda session: session.execute(text("SELECT 1")))
    pair.demote()
    write(engine, lambda session: session.execute(CREATE))
    engine.dispose()


def test_a_session_that_stays_never_writes_again(pair, monkeypatch):
    """The control."""
    engine = open_engine(pair.url("postgres"))
    write(engine, lambda session: session.execute(text("SELECT 1")))
    pair.demote()
    monkeypatch.setattr(db.engine, "STANDBY", None)
    with pytest.raises(Unreachable, match="cannot execute CREATE TABLE in a read-only transaction"):
        write(engine, lambda session: session.execute(CREATE), 0.5)
    engine.dispose()
