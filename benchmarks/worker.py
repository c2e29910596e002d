"""What `celery -A benchmarks.worker` loads: the worker with the stage `noop`, and a task without the engine."""

from benchmarks import noop
from tasks.app import broker_url_from_environment, create_app
from tasks.job_task import register
from workers.process import workplace

app = create_app(broker_url_from_environment())
register(app, workplace)


@app.task(name="bare")
def bare(number: int) -> None:
    """What the stage does."""
    noop.tell()
