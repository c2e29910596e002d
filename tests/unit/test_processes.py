"""The living children of a process, while some of them end."""

import os
import subprocess
import sys

import psutil

from orchestrator import processes
from orchestrator.processes import children

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
