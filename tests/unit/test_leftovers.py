"""What a killed supervisor left is told apart from strangers, wherever the clock is set."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from orchestrator.cluster.leftovers import (
    SUPERVISOR_VARIABLE,
    Birth,
    Leader,
    Record,
    birth,
    end_leftovers,
    leader,
    recorded,
    write_record,
)

OURS = "0123abcd"
LEADER = """
import subprocess, sys
member = "import signal, sys; print('there', flush=True); signal.pause()"
members = [subprocess.Popen([sys.executable, "-c", member], stdout=subprocess.PIPE) for _ in range(2)]
for member in members:
    member.stdout.readline()
print(*[member.pid for member in members], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def new_group():
    """``new_group(mark)`` is the leader of a group of its own, and its members; started by supervisor ``mark``."""
    leaders = []

    def start(mark=""):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        environment = os.environ | {SUPERVISOR_VARIABLE: mark}
        process = subprocess.Popen(
            [sys.executable, "-c", LEADER], **pipes, env=environment, start_new_session=True
        )
        leaders.append(process)
        return process, [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]

    yield start
    for process in leaders:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def live(members):
    return [it for it in members if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]


def without_its_leader(group):
    process, members = group
    process.kill()
    process.wait()
    return process.pid, members


LONG_AGO = Birth("another-boot", 1.0)


def test_a_group_whose_leader_lives_is_gone_to_its_last_member(new_group):
    process, members = new_group()
    end_leftovers(Record(OURS, (leader("cpu-worker", "node", process.pid),)))
    assert live(members) == []
    assert process.wait() == -signal.SIGKILL


def test_a_group_is_ours_though_the_clock_was_set(new_group, monkeypatch):
    process, members = new_group()
    record = Record(OURS, (leader("cpu-worker", "node", process.pid),))
    began = psutil.Process(process.pid).create_time()
    booted = psutil.boot_time()
    # what a step of the clock does to psutil's idea of when a process began
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted + 2)
    assert psutil.Process(process.pid).create_time() - began > 1
    end_leftovers(record)
    assert live(members) == []


def test_a_strangers_group_is_left_alone_whether_its_leader_lives_or_not(new_group):
    """Its leader has the pid of one that was recorded long ago."""
    process, members = new_group()
    gone, orphans = without_its_leader(new_group())
    here = birth(process.pid)
    ticks_of_another_boot = Birth("another-boot", here.start)
    later_process = Birth(here.boot, here.start - 1)
    for born in (LONG_AGO, ticks_of_another_boot, later_process):
        pids = (process.pid, gone)
        end_leftovers(Record(OURS, tuple(Leader("cpu-worker", "node", pid, born) for pid in pids)))
    assert process.poll() is None
    assert live([*members, *orphans]) == [*members, *orphans]
    for orphan in orphans:
        orphan.kill()


def test_what_the_supervisor_has_marked_is_ended_without_its_leader_and_outside_its_group(new_group):
    gone, orphans = without_its_leader(new_group(OURS))
    _, others = new_group("another supervisor")
    end_leftovers(Record(OURS, (Leader("cpu-worker", "node", gone, LONG_AGO),)))
    assert live(orphans) == []
    assert live(others) == others


def test_no_mark_is_the_mark_of_nobody(new_group):
    process, members = new_group("")
    end_leftovers(Record())
    assert live(members) == members
    assert process.poll() is None


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = Record(OURS, (leader("cpu-worker", "node", os.getpid()),))
    write_record(tmp_path / "processes.json", record)
    assert recorded(tmp_path / "processes.json") == record


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"supervisor": "x", "leaders": 1}',
        '{"supervisor": "x", "leaders": [{"pid": 1}]}',
    ],
)
def test_what_is_no_record_names_nobody(tmp_path, content):
    """Nor does the record of an earlier version, with times by a clock."""
    (tmp_path / "processes.json").write_text(content)
    assert recorded(tmp_path / "processes.json") == Record()
    earlier = [{"name": "valkey", "pid": os.getpid(), "started": 1.0}]
    (tmp_path / "processes.json").write_text(json.dumps(earlier))
    assert recorded(tmp_path / "processes.json") == Record()
