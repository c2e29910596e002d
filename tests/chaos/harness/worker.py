"""What `celery -A harness.worker` loads: the product's worker with test-only stages, which dies when told to."""

from harness import controls, failpoints, link, poison, switches
from tasks.app import broker_url_from_environment, create_app
from tasks.job_task import register
from workers.process import workplace

link.install()
poison.install()
controls.install()
failpoints.install()
app = create_app(broker_url_from_environment())
switches.install(app)
register(app, workplace)
