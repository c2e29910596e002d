"""The children of a process, while some of them end; and the end of whole groups."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from orchestrator.cluster.processes import is_child, stop

PARENT = """
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(3)]
print(*[child.pid for child in children], flush=True)
for line in sys.stdin:
    children[int(line)].kill()
    children[int(line)].wait()
    print("reaped", flush=True)
"""


def test_a_process_is_a_child_while_it_lives_and_of_its_parent_alone():
    """Else its job would count as lost, or would wait for its lease."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], **pipes)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert [is_child(pid, parent.pid) for pid in pids] == [True, True, True]
    assert not is_child(parent.pid, parent.pid)
    parent.stdin.write("0\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "reaped\n"
    killed = psutil.Process(pids[1])
    killed.kill()
    while killed.status() != psutil.STATUS_ZOMBIE:  # nobody reaps it
        time.sleep(0.01)
    assert [is_child(pid, parent.pid) for pid in pids] == [False, False, True]
    parent.kill()
    parent.communicate()
    assert not is_child(pids[2], parent.pid)
    psutil.Process(pids[2]).kill()


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
