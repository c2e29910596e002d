"""Turn this process into Flower, a live view of a cluster's queues."""

import os
import secrets
import sys
from typing import NoReturn

from rich.console import Console

from orchestrator.cluster.client import require_cluster
from orchestrator.cluster.place import Place
from orchestrator.cluster.processes import become
from orchestrator.errors import UsageError

PASSWORD_VARIABLE = "FLOWER_BASIC_AUTH"  # a variable's name


def become_flower(place: Place, address: str, port: int, console: Console) -> NoReturn:
    """Replace this process by Flower: read-only, behind a password."""
    require_cluster(place)
    environment = {"PYTHONSAFEPATH": "1"}
    if not os.environ.get(PASSWORD_VARIABLE):
        if place.home is None:
            raise UsageError(f"Flower needs a password. Set {PASSWORD_VARIABLE}=USER:PASSWORD.")
        environment[PASSWORD_VARIABLE] = f"orchestrator:{secrets.token_urlsafe(12)}"
        user, _, password = environment[PASSWORD_VARIABLE].partition(":")
        console.print(f"http://{address}:{port}  user {user}  password {password}")
    command = [sys.executable, "-P", "-m", "celery", "-A", "orchestrator.cluster.flower_app", "flower"]
    # Flower keeps tasks in memory, by default five times as many
    options = [f"--address={address}", f"--port={port}", "--read_only", "--max_tasks=20000"]
    become([*command, *options], place, environment)
