"""A Valkey of the benchmark's own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.member import Member

from benchmarks.waiting import wait_for
from orchestrator.cluster.processes import valkey_command


@contextmanager
def valkey_socket() -> Iterator[Path]:
    """Where it listens; it is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        socket = Path(folder, "valkey.sock")
        valkey = Member("valkey", valkey_command(socket), {}, Path(folder))
        valkey.start()
        try:
            wait_for(socket.exists, "Valkey")
            yield socket
        finally:
            valkey.kill()
