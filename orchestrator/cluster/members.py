"""The members of a private cluster, Valkey and the workers: started, started again, recorded, stopped."""

import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from orchestrator.cluster.backoff import Backoff
from orchestrator.cluster.leftovers import SUPERVISOR_VARIABLE, Record, leader, write_record
from orchestrator.cluster.place import Place, socket_path
from orchestrator.cluster.processes import start, stop, valkey_command, worker_command, worker_environment
from orchestrator.errors import InfrastructureError

log = logging.getLogger(__name__)

START_SECONDS = 30.0


@dataclass
class Member:
    """One process group. A worker's every start has a node name of its own, so that no late write of an earlier
    one is taken for its."""

    name: str
    queue: str = ""
    concurrency: int = 0
    process: subprocess.Popen[bytes] | None = None
    node: str = ""
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def is_worker(self) -> bool:
        """Whether it takes jobs."""
        return bool(self.queue)

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def celery_name(self) -> str:
        """A worker's name in Celery."""
        return f"{self.name}@{socket.gethostname()}"

    @property
    def is_in_trouble(self) -> bool:
        """Whether it keeps ending soon after its start."""
        return self.backoff.early_ends > 0 and not (self.runs and self.backoff.has_settled)


class Members:
    """Those of one supervisor, with its random id."""

    def __init__(self, place: Place, home: Path, gpus: list[str]) -> None:
        self.place = place
        self.home = home
        self.id = secrets.token_hex(16)
        self.valkey = Member("valkey")
        self.workers = [
            Member("cpu-worker", "cpu", os.cpu_count() or 1),
            *(Member(f"gpu-worker-{gpu}", "gpu", 1) for gpu in gpus),
        ]
        self.record_path = home / "run" / "processes.json"
        self.is_recorded = False

    def __iter__(self) -> Iterator[Member]:
        return iter((self.valkey, *self.workers))

    @property
    def nodes(self) -> set[str]:
        """The names that attempts know the running workers by."""
        return {member.node for member in self.workers if member.process is not None}

    def is_ours(self, node: str) -> bool:
        """Whether a worker of this home has or had this node name, under whichever supervisor."""
        return node.endswith(f"@{self.home}")

    def record(self) -> None:
        """Record what runs, unless that is done; raises ``OSError``."""
        if not self.is_recorded:
            running = [member for member in self if member.process is not None]
            leaders = [leader(it.name, it.node, it.process.pid) for it in running if it.process is not None]
            write_record(self.record_path, Record(self.id, tuple(it for it in leaders if it is not None)))
            self.is_recorded = True

    def collect_ended(self) -> list[tuple[Member, int]]:
        """Members that have ended since the last call, none of their processes left, and their exit codes."""
        ended = []
        for member in self:
            if member.process is not None and not member.runs:
                # its children may have outlived it, and could still finish what is released next
                stop({member.name: member.process})
                ended.append((member, member.process.returncode))
                self._has_ended(member)
        return ended

    def kill(self, member: Member) -> None:
        """End a member that would not react to anything milder."""
        if member.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(member.process.pid, signal.SIGKILL)
            stop({member.name: member.process})
            self._has_ended(member)

    def stop(self, *members: Member) -> None:
        """Stop members and wait until all their processes are gone."""
        running = {member.name: member.process for member in members if member.process is not None}
        stop(running)
        for member in members:
            member.process = None

    def start(self, member: Member) -> None:
        """Start a member; raises ``OSError``."""
        member.backoff.start()
        environment = {SUPERVISOR_VARIABLE: self.id}
        if member.is_worker:
            member.node = f"{member.name}-{secrets.token_hex(4)}@{self.home}"
            environment |= worker_environment(member.node)
            command = worker_command(member.queue, member.concurrency, member.celery_name)
            if member.queue == "gpu":
                environment["CUDA_VISIBLE_DEVICES"] = member.name.rpartition("-")[2]
        else:
            # a killed Valkey leaves its socket behind
            socket_path(self.home).unlink(missing_ok=True)
            command = valkey_command(socket_path(self.home))
        try:
            member.process = start(member.name, command, environment, self.place)
        except OSError:
            member.backoff.end()
            raise
        self.is_recorded = False

    def wait_for_valkey(self, is_stopping: Callable[[], bool]) -> None:
        """Return once Valkey answers: workers that are started before it begin with a failed connection."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.valkey.runs and not is_stopping():
            try:
                with redis.Redis(unix_socket_path=str(socket_path(self.home)), socket_timeout=1.0) as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        if not is_stopping():
            self.kill(self.valkey)
            raise InfrastructureError(f"Valkey did not start; see {self.home}/logs/valkey.log.")

    def _has_ended(self, member: Member) -> None:
        member.process = None
        member.backoff.end()
        self.is_recorded = False

    @property
    def trouble(self) -> str:
        """What keeps ending, in one line; empty if nothing does."""
        troubled = [member.name for member in self if member.is_in_trouble]
        return "".join(
            f"{name} exits as soon as it starts; see {self.home}/logs/{name}.log." for name in troubled[:1]
        )
