"""Turn this process into a Celery worker."""

import os
import socket
from typing import NoReturn

from db.dispatch import QUEUES
from orchestrator.cluster.client import require_cluster
from orchestrator.cluster.place import Place
from orchestrator.cluster.processes import become, worker_command, worker_environment
from orchestrator.errors import UsageError, nearest


def become_worker(place: Place, queues: str, concurrency: int | None, name: str | None) -> NoReturn:
    """Replace this process by a Celery worker of ``place``."""
    for queue in queues.split(","):
        if queue not in QUEUES:
            raise UsageError(f"unknown queue '{queue}'.{nearest(queue, QUEUES)}")
    if concurrency is None:
        concurrency = 1 if "gpu" in queues.split(",") else os.cpu_count() or 1
    require_cluster(place)
    name = name or f"{queues.replace(',', '-')}-{os.getpid()}"
    # with its host, as Celery has it: two machines' workers must differ in `attempts`
    node = name if "@" in name else f"{name}@{socket.gethostname()}"
    become(worker_command(queues, concurrency, node), place, worker_environment(node))
