"""What `celery -A benchmarks.worker` loads: the worker with the stage `noop`, and a task without the engine."""

import os
import time
from functools import cache

from benchmarks import noop
from benchmarks.cluster import BARE_VARIABLE, TIME
from tasks.app import broker_url_from_environment, create_app
from tasks.job_task import register
from workers.process import workplace

noop.install()
app = create_app(broker_url_from_environment())
register(app, workplace)


@cache
def _times() -> int:
    return os.open(os.environ[BARE_VARIABLE], os.O_APPEND | os.O_WRONLY | os.O_CREAT)


@app.task(name="bare")
def bare(number: int) -> None:
    """Nothing, but say when."""
    os.write(_times(), TIME.pack(time.time()))
