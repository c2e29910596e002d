"""How commands use the private cluster: start it, keep it running, stop it, wait for it to end."""

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from orchestrator.cluster.backoff import Backoff
from orchestrator.cluster.place import HOME_VARIABLE, Place
from orchestrator.cluster.processes import start, valkey_binary
from orchestrator.cluster.trouble import told
from orchestrator.errors import InfrastructureError, UsageError
from orchestrator.locks import is_held, lock, supervisor_lock, up_lock

STOP_SECONDS = 60.0
PATIENCE_SECONDS = 300.0
"""A person waits no longer for a private cluster in which something keeps failing."""


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
    deadline = time.monotonic() + STOP_SECONDS
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
    """Starts the private cluster's supervisor again when it is gone, and says each time what is wrong."""

    place: Place
    console: Console
    patience_seconds: float = PATIENCE_SECONDS
    started: subprocess.Popen[bytes] | None = None
    backoff: Backoff = field(default_factory=Backoff)
    died: str = ""
    said: str = ""
    troubled_since: float | None = None

    def __call__(self) -> None:
        """Look once; raises ``InfrastructureError`` where something has been wrong for longer than patience."""
        if self.place.home is None:
            return
        trouble = self._look(self.place.home)
        if trouble and trouble != self.said:
            self.console.print(f"{trouble.rstrip('.')}. It is tried again.", markup=False, soft_wrap=True)
        self.said = trouble
        if not trouble:
            self.troubled_since = None
            return
        self.troubled_since = self.troubled_since or time.monotonic()
        if time.monotonic() - self.troubled_since >= self.patience_seconds:
            if not is_held(up_lock(self.place.home)):
                stop_supervisor(self.place, self.started)
            raise InfrastructureError(trouble)

    def _look(self, home: Path) -> str:
        """What is wrong, empty if nothing is; what is gone is started again once that is due."""
        if is_held(supervisor_lock(home)):
            if self.backoff.has_settled:
                self.died = ""
            return told(home) or self.died
        if self.started is not None:
            code = self.started.poll()
            if code is None:
                return self.died  # it has not taken its lock yet
            self.backoff.end()
            self.died = f"The private cluster ended with code {code}; see {home}/logs/supervisor.log."
            self.started, self.said = None, ""
        if self.backoff.is_due:
            self._start()
        return self.died

    def _start(self) -> None:
        self.backoff.start()
        try:
            self.started = start_supervisor(self.place)
        except (OSError, InfrastructureError) as error:
            # the first time there is somebody to see it
            if self.troubled_since is None and isinstance(error, InfrastructureError):
                raise
            self.backoff.end()
            self.died, self.said = f"The private cluster does not start: {error}", ""


def hold(place: Place, console: Console) -> None:
    """Keep a private cluster running until Ctrl-C."""
    assert place.home is not None
    with lock(up_lock(place.home)) as held:
        if held is None:
            raise UsageError(f"another `orchestrator up` holds the cluster under '{place.home}'.")
        keep_alive = KeepAlive(place, console, patience_seconds=math.inf)
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
