"""How commands use the private cluster: start it, keep it running, stop it, wait for it to end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console

from orchestrator.cluster.place import HOME_VARIABLE, Place
from orchestrator.cluster.processes import start, valkey_binary
from orchestrator.errors import InfrastructureError, UsageError
from orchestrator.locks import is_held, lock, supervisor_lock, up_lock

START_SECONDS = 30.0
RESTARTS = 5


def start_supervisor(place: Place) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background; it exits at once if another one is running."""
    assert place.home is not None
    valkey_binary()  # fail here, where the user sees it
    command = [sys.executable, "-P", "-m", "orchestrator.cluster.supervisor"]
    return start("supervisor", command, {HOME_VARIABLE: str(place.home)}, _without_addresses(place))


def stop_supervisor(place: Place, started: subprocess.Popen[bytes] | None) -> None:
    """Stop the supervisor, and with it the cluster, and wait until it is gone.

    ``started`` may not have taken its lock yet.
    """
    assert place.home is not None
    if started is not None and started.poll() is None:
        # by its handle, since the lock file may not hold its pid yet
        started.terminate()
        started.wait()
    path = supervisor_lock(place.home)
    deadline = time.monotonic() + 2 * START_SECONDS
    while is_held(path) and time.monotonic() < deadline:
        # the file is empty for an instant before the holder writes its pid, and the holder may end meanwhile
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)
        time.sleep(0.2)


def wait_until_idle(place: Place, seconds: float) -> None:
    """Wait for the supervisor to exit by itself, as it does once no run is active."""
    assert place.home is not None
    deadline = time.monotonic() + seconds
    while is_held(supervisor_lock(place.home)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _without_addresses(place: Place) -> Place:
    """The supervisor finds its addresses by its home folder, as every command does."""
    return Place(place.home, "", "", "")


@dataclass
class KeepAlive:
    """Restarts the private cluster's supervisor when it is gone, up to a few times."""

    place: Place
    tries: int = 0
    started: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        if self.place.home is None or is_held(supervisor_lock(self.place.home)):
            return
        if self.started is not None and self.started.poll() is None:
            return  # it has not taken its lock yet
        # a supervisor that dies again and again has a cause that another start does not remove
        if self.tries == RESTARTS:
            logs = self.place.home / "logs"
            raise InfrastructureError(
                f"the private cluster died {RESTARTS} times. See {logs}/supervisor.log."
            )
        self.tries += 1
        self.started = start_supervisor(self.place)


def hold(place: Place, console: Console) -> None:
    """Keep a private cluster running until Ctrl-C."""
    assert place.home is not None
    with lock(up_lock(place.home)) as held:
        if held is None:
            raise UsageError(f"another `orchestrator up` holds the cluster under '{place.home}'.")
        keep_alive = KeepAlive(place)
        console.print(f"Private cluster under {place.home}; logs in {place.home / 'logs'}. Ctrl-C stops it.")
        try:
            while True:
                keep_alive()
                time.sleep(1)
        except KeyboardInterrupt:
            console.print("Stopping the workers …")
    stop_supervisor(place, keep_alive.started)


def require_cluster(place: Place) -> None:
    """Raise ``InfrastructureError`` if no private cluster is running; a shared one is assumed to be."""
    if place.home is not None and not is_held(supervisor_lock(place.home)):
        raise InfrastructureError(
            f"no private cluster is running under '{place.home}'. Start one: orchestrator up"
        )
