"""A private cluster of which something hangs, ends again and again, or is left behind by a killed supervisor."""

import os
import resource
import signal
import sqlite3
from contextlib import closing

import psutil
import pytest
import redis
from harness.graph import Node
from harness.link import Link
from harness.poison import Poison
from harness.private import PrivateCluster

from db.models import JobState

SPARED = "and is spared"


@pytest.fixture
def new_private(short_folder):
    """``new_private("soon")`` is a private cluster that runs, with these switches; nothing of it stays."""
    clusters = []

    def start(*switches, **limits):
        clusters.append(PrivateCluster(short_folder(), *switches, **limits).__enter__())
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.__exit__()


def gated(gate, count, name="held"):
    return [Node(Link(f"{name} {number}", gate=str(gate))) for number in range(count)]


def hold(private, gate, count):
    """Jobs that run until ``gate`` is there."""
    private.submit(gated(gate, count))
    private.wait_for(lambda: private.states().get(JobState.RUNNING) == count, f"{count} jobs that are held")


def is_gone(pid):
    """Whatever has reaped it."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def is_stopped(pid):
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


# ---- what a killed supervisor leaves ------------------------------------------------------------------


def test_what_a_killed_supervisor_left_is_ended_and_its_jobs_run_again_uncharged(new_private, tmp_path):
    private = new_private()
    hold(private, tmp_path / "gate", private.concurrency)
    left, nodes = private.leader("cpu-worker"), {worker for worker, _ in private.attempts()}
    private.kill_supervisor()
    private.start()
    assert private.another(left).node not in nodes
    assert is_gone(left.pid)
    (tmp_path / "gate").touch()
    private.wait_for_end()
    assert len(private.marks()) == 1
    assert private.charges() == 0
    assert sorted(outcome for _, outcome in private.attempts()) == sorted(
        ["released", "succeeded"] * private.concurrency
    )


def test_a_worker_that_outlives_its_supervisor_and_its_record_writes_nothing_more(new_private, tmp_path):
    """A control: it lives on; its jobs run again all the same, under other names."""
    private = new_private("adopt")
    hold(private, tmp_path / "gate", private.concurrency)
    left = private.leader("cpu-worker")
    private.kill_supervisor()
    (private.home / "run" / "processes.json").unlink()
    private.start()
    private.wait_for(lambda: len(private.attempts()) >= 2 * private.concurrency, "new attempts")
    assert left.lives
    (tmp_path / "gate").touch()
    private.wait_for_end()
    assert private.charges() == 0
    assert (left.node, "succeeded") not in private.attempts()[: private.concurrency]


# ---- what hangs ---------------------------------------------------------------------------------------


def freeze_the_parent(private):
    """A worker's parent stops, and jobs are there that it does not take."""
    worker = private.wait_for_a_worker()
    private.send(worker, signal.SIGSTOP)
    private.submit(gated("", 6, "waiting"))
    return worker


def test_a_worker_whose_parent_is_deaf_is_replaced_and_charges_nothing(new_private, say):
    private = new_private("soon")
    worker = freeze_the_parent(private)
    private.another(worker)
    private.wait_for_end()
    assert private.charges() == 0
    assert private.logged("leaves its messages") == 1
    say("private cluster: worker's parent stopped; restarted, lost 0 charged 0")


def test_a_deaf_parent_that_is_left_alone_stays_deaf(new_private):
    """A control."""
    private = new_private("soon", "spare")
    worker = freeze_the_parent(private)
    private.wait_for(lambda: private.logged(SPARED) >= 3, "a parent that stays deaf")
    assert is_stopped(worker.pid)
    assert JobState.SUCCEEDED not in private.states()


def test_a_worker_that_is_only_busy_is_left_alone(new_private, tmp_path):
    """All of its processes hold a job, and messages wait."""
    private = new_private("soon")
    worker = private.wait_for_a_worker()
    hold(private, tmp_path / "gate", private.concurrency)
    private.submit(gated("", 6, "waiting"))
    private.wait_for(lambda: private.states().get(JobState.QUEUED, 0) >= 6, "messages that wait")
    seen = private.looks()
    private.wait_for(lambda: private.looks() >= seen + 12, "looks at it")
    assert private.leader("cpu-worker") == worker
    (tmp_path / "gate").touch()
    private.wait_for_end()
    assert private.leader("cpu-worker") == worker


def freeze_valkey(private):
    private.wait_for_a_worker()
    valkey = private.leader("valkey")
    private.send(valkey, signal.SIGSTOP)
    private.submit(gated("", 6, "waiting"))
    return valkey


def test_a_valkey_that_does_not_answer_is_replaced(new_private, say):
    private = new_private("soon")
    private.another(freeze_valkey(private))
    private.wait_for_end()
    assert private.charges() == 0
    say("private cluster: Valkey stopped; restarted, lost 0 charged 0")


def test_a_valkey_that_is_left_alone_stays_silent(new_private):
    """A control."""
    private = new_private("soon", "spare")
    valkey = freeze_valkey(private)
    private.wait_for(lambda: private.logged(SPARED) >= 3, "a Valkey that stays silent")
    assert is_stopped(valkey.pid)
    assert JobState.SUCCEEDED not in private.states()


def freeze_in_a_transaction(private, tmp_path):
    """A process of the pool stops while it holds the database's write lock."""
    worker = private.wait_for_a_worker()
    log = tmp_path / "executions"
    nodes = [Node(Poison("frozen", way="freeze", log=str(log))), *gated("", 6, "beside")]
    private.submit(nodes)
    private.wait_for((private.kills.folder / "frozen").exists, "a process that stops")
    return worker


def test_a_process_frozen_with_the_write_lock_is_ended_after_a_lease(new_private, tmp_path, say):
    private = new_private(lease_seconds=1)
    private.another(freeze_in_a_transaction(private, tmp_path))
    private.wait_for_end()
    assert private.logged("holds the database's write lock") == 1
    say("private cluster: a process stopped within a write transaction; ended, lost 0")


def test_a_process_frozen_with_the_write_lock_stops_all_others_while_it_lives(new_private, tmp_path):
    """A control."""
    private = new_private("spare", lease_seconds=1)
    worker = freeze_in_a_transaction(private, tmp_path)
    private.wait_for(lambda: private.logged(SPARED) >= 2, "a lock that stays")
    assert private.leader("cpu-worker") == worker
    assert set(private.states()) != {JobState.SUCCEEDED}


def test_a_stranger_that_holds_the_write_lock_costs_no_worker(new_private):
    private = new_private(lease_seconds=1)
    worker = private.wait_for_a_worker()
    with closing(sqlite3.connect(private.home / "orchestrator.db", isolation_level=None)) as stranger:
        private.submit(gated("", 1, "before"))
        private.wait_for_end()
        private.submit(gated("", 6, "waiting"))
        stranger.execute("BEGIN IMMEDIATE")
        private.wait_for(lambda: "locked" in private.told(), "a database that is locked")
        stranger.execute("ROLLBACK")
    private.wait_for_end()
    assert private.leader("cpu-worker") == worker
    private.wait_for(lambda: not private.told(), "nothing wrong any more")


# ---- what ends again and again ------------------------------------------------------------------------


def questions(private):
    """How many the supervisor has asked its Valkey."""
    with redis.Redis(unix_socket_path=str(private.home / "run" / "valkey.sock")) as client:
        return client.info("commandstats").get("cmdstat_lindex", {}).get("calls", 0)


def test_a_supervisor_outlives_a_disk_that_takes_nothing(new_private):
    """Its limit of a file's size is none: neither record nor log nor database can be written."""
    private = new_private()
    worker = private.wait_for_a_worker()
    limit = resource.prlimit(private.supervisor.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(private.supervisor.pid, resource.RLIMIT_FSIZE, (0, limit[1]))
    os.killpg(worker.pid, signal.SIGKILL)
    private.wait_for(lambda: is_gone(worker.pid), "an end that is noticed")
    private.submit(gated("", 6, "waiting"))
    seen = questions(private)
    private.wait_for(lambda: questions(private) > seen, "rounds of the supervisor")
    assert private.supervisor.poll() is None
    resource.prlimit(private.supervisor.pid, resource.RLIMIT_FSIZE, limit)
    for process in psutil.Process(private.supervisor.pid).children(recursive=True):
        process.kill()
    private.wait_for_end()
    assert private.leader("cpu-worker").lives
