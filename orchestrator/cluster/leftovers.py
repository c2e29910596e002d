"""What a killed supervisor left behind: recorded while it runs, told apart from strangers, ended by the next one."""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

SUPERVISOR_VARIABLE = "ORCHESTRATOR_SUPERVISOR"
"""The random id of the supervisor that started a process; what the process starts inherits it."""
GONE_SECONDS = 4.0
"""A killed process lingers while its memory is freed."""
START_FIELD = 19
"""Of /proc/PID/stat, counted after the name: ticks from the boot to the process's start."""


@dataclass(frozen=True)
class Birth:
    """What distinguishes a process from every other one of the same pid, wherever the clock is set."""

    boot: str
    """Of the machine, at random; empty where there is no /proc."""
    start: float
    """Ticks since that boot; seconds since 1970 where there is no /proc."""


@dataclass(frozen=True)
class Leader:
    """The first process of a recorded group, and the name that attempts know it by."""

    name: str
    node: str
    pid: int
    birth: Birth

    @property
    def lives(self) -> bool:
        """Whether this very process is there, if only as a zombie; its group is then ours."""
        return birth(self.pid) == self.birth


@dataclass(frozen=True)
class Record:
    """What one supervisor started."""

    supervisor: str = ""
    """Its random id."""
    leaders: tuple[Leader, ...] = ()


def birth(pid: int) -> Birth | None:
    """When a process began; None if it is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    try:
        if not boot:
            return Birth("", psutil.Process(pid).create_time())
        # the name before it stands in parentheses and may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return Birth(boot, float(fields[START_FIELD]))
    except (OSError, psutil.NoSuchProcess):
        return None


def leader(name: str, node: str, pid: int) -> Leader | None:
    """A group's leader, to be recorded; None if it has ended already."""
    born = birth(pid)
    return Leader(name, node, pid, born) if born else None


def write_record(path: Path, record: Record) -> None:
    """Record what runs, for the supervisor that follows a killed one; raises ``OSError``."""
    # atomic, but not synced: after a crash of the machine there is nobody left to kill
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(record)))
    temporary.replace(path)


def recorded(path: Path) -> Record:
    """What was recorded; nothing if the record is missing, unreadable or of another version."""
    try:
        return _parsed(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return Record()


def _parsed(content: Mapping[str, object]) -> Record:
    leaders = content["leaders"]
    if not isinstance(leaders, list):
        raise TypeError("leaders: not a list")
    return Record(
        str(content["supervisor"]),
        tuple(Leader(**{**leader, "birth": Birth(**leader["birth"])}) for leader in leaders),
    )


def end_leftovers(record: Record) -> None:
    """Kill what a killed supervisor left behind, and return once it is gone; never kill a stranger.

    A group is ours while its leader lives. Of a group without its leader, and of what has left its group, ours
    is what carries the supervisor's id in its environment.
    """
    groups = {leader.pid for leader in record.leaders if leader.lives}
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + GONE_SECONDS
    # again and again, since one that was forked meanwhile is not in the first list
    while time.monotonic() < deadline:
        marked = _marked(record.supervisor)
        for process in marked:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if not marked and not any(_is_alive_in(process, groups) for process in psutil.process_iter()):
            return
        time.sleep(0.02)


def wait_for_the_killed(groups: Sequence[int]) -> None:
    """Wait until all members of these groups are gone."""
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        if not any(_is_alive_in(process, groups) for process in psutil.process_iter()):
            return
        time.sleep(0.02)


def _marked(supervisor: str) -> list[psutil.Process]:
    """Live processes that were started by a supervisor or by what it started."""
    return [process for process in psutil.process_iter() if supervisor and _is_marked(process, supervisor)]


def _is_marked(process: psutil.Process, supervisor: str) -> bool:
    try:
        marked = process.environ().get(SUPERVISOR_VARIABLE) == supervisor
        return bool(marked and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False  # gone, or another user's


def _is_alive_in(process: psutil.Process, groups: Sequence[int] | set[int]) -> bool:
    try:
        return os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
