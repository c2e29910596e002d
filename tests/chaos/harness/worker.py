"""What `celery -A harness.worker` loads: the product's worker with the stage ``link``, which dies when told to."""

from harness import controls, failpoints, link
from tasks.app import broker_url_from_environment, create_app
from tasks.job_task import register
from workers.process import workplace

link.install()
controls.install()
failpoints.install()
app = create_app(broker_url_from_environment())
register(app, workplace)
