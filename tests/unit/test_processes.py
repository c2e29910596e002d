"""The living children of a process, while some of them end; and the end of whole groups."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from orchestrator.cluster import processes
from orchestrator.cluster.processes import Leader, children, end_leftovers, stop

PARENT = """
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(3)]
print(*[child.pid for child in children], flush=True)
for line in sys.stdin:
    children[int(line)].kill()
    children[int(line)].wait()
    print("reaped", flush=True)
"""


def test_a_child_that_ends_while_they_are_counted_hides_no_other(monkeypatch):
    """Else the jobs of all of them would count as lost."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], **pipes)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    lives = processes._lives

    def end_the_first_one(process):
        if process.pid == pids[0] and psutil.pid_exists(pids[0]):
            parent.stdin.write("0\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "reaped\n"
        return lives(process)

    monkeypatch.setattr(processes, "_lives", end_the_first_one)
    assert children(parent.pid) == set(pids[1:])
    monkeypatch.undo()
    assert children(parent.pid) == set(pids[1:])
    parent.kill()
    parent.communicate()
    for pid in pids[1:]:
        os.kill(pid, 9)
    assert children(parent.pid) == set()


LEADER = """
import subprocess, sys
member = "held = bytes(b'x' * 900_000_000); print('held', flush=True); input()"
command, pipes = [sys.executable, "-c", member], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
members = [subprocess.Popen(command, **pipes) for _ in range(2)]
for member in members:
    member.stdout.readline()
print(*[member.pid for member in members], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def group():
    """A leader of a group of its own, and two members that hold memory, which a killed process frees first."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    leader = subprocess.Popen([sys.executable, "-c", LEADER], **pipes, start_new_session=True)
    yield leader, [psutil.Process(int(pid)) for pid in leader.stdout.readline().split()]
    leader.communicate()


def states(members):
    return {member.status() if member.is_running() else "gone" for member in members}


def test_a_stopped_group_is_gone_to_its_last_member(group):
    leader, members = group
    stop({"leader": leader})
    assert states(members) <= {"gone", psutil.STATUS_ZOMBIE}
    assert leader.returncode == -signal.SIGTERM


def test_what_a_killed_supervisor_left_is_gone_to_its_last_member(group):
    leader, members = group
    end_leftovers([Leader("leader", leader.pid, psutil.Process(leader.pid).create_time())])
    assert states(members) <= {"gone", psutil.STATUS_ZOMBIE}
    assert leader.wait() == -signal.SIGKILL
