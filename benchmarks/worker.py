"""What `celery -A benchmarks.worker` loads: the worker with the stage `noop`, and a task without the engine."""

from typing import Any

from celery.signals import worker_init

from benchmarks import noop
from tasks.app import broker_url_from_environment, create_app
from tasks.job_task import register
from workers.process import workplace

BARE = "bare"

app = create_app(broker_url_from_environment())
register(app, workplace)


@worker_init.connect
def listen_for_bare(sender: Any, **_: Any) -> None:
    """In addition to the engine's queues."""
    sender.app.amqp.queues.select_add(BARE)


@app.task(name="bare")
def bare(number: int) -> None:
    """What the stage does."""
    noop.tell()
