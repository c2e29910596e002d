"""What a worker process is: its workplace, its acknowledgements, and what its parent must not have loaded."""

import functools
import os
import socket
import sys
from pathlib import Path
from typing import Any

from celery.signals import worker_init
from kombu.entity import Queue
from kombu.transport.redis import Channel

from db.artifacts import ArtifactStore
from db.engine import open_engine
from db.jobs import Worker
from tasks.app import packages
from tasks.code import codes, queues_of
from tasks.heartbeat import Heartbeat
from tasks.job_task import Workplace
from tasks.variables import ARTIFACTS_VARIABLE, DATABASE_VARIABLE, PACKAGES_VARIABLE, WORKER_VARIABLE
from workers.acknowledge import QoS


# opened by the first job, that is after the fork: a connection that two processes share is garbled
@functools.cache
def workplace() -> Workplace:
    """Database, artifacts and name of this process, from its environment."""
    name = os.environ.get(WORKER_VARIABLE, "by-hand")
    # a commit that a power cut takes back merely repeats a job
    engine = open_engine(os.environ[DATABASE_VARIABLE], durable=False)
    return Workplace(
        engine,
        ArtifactStore(os.environ[ARTIFACTS_VARIABLE]),
        Worker(name, socket.gethostname(), os.getpid(), codes()),
        # a process of a pool may be killed: its parent forks another one
        Heartbeat(engine, watched=True),
    )


@worker_init.connect  # type: ignore[untyped-decorator]  # celery has no types
def refuse_unsafe_start(**_: Any) -> None:
    """Exit when the parent has loaded what must not cross a fork, or imports other code than it should."""
    loaded = [name for name in ("torch", "cv2") if name in sys.modules]
    if loaded:
        # not an exception, which Celery would log and go on
        sys.exit(f"worker: {' and '.join(loaded)} loaded before the fork; children would hang.")
    expected = os.environ.get(PACKAGES_VARIABLE)
    if expected is not None and Path(expected) != packages():
        sys.exit(
            f"worker: imports {packages()}, its supervisor {expected}. "
            "Start both from the same installation, away from a checkout."
        )


@worker_init.connect  # type: ignore[untyped-decorator]  # celery has no types
def listen_by_code(sender: Any, **_: Any) -> None:
    """Listen, in place of the queues that the command names, to theirs of the code that this worker has."""
    queues = sender.app.amqp.queues
    chosen = list(queues.consume_from)
    for name in [of_code for queue in chosen for of_code in queues_of(queue)]:
        queues.add(Queue(name))  # type: ignore[no-untyped-call]
    queues.select([name for name in queues if name.partition(".")[0] in chosen and "." in name])


@worker_init.connect  # type: ignore[untyped-decorator]  # celery has no types
def acknowledge_in_vain(**_: Any) -> None:
    """Use a QoS that keeps no process waiting for a broker that missed an acknowledgement."""
    # on the class, since kombu makes its channels itself
    Channel.QoS = QoS
