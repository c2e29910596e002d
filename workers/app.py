"""What `celery -A workers.app` loads: the app with one task per stage."""

from tasks.app import broker_url_from_environment, create_app
from tasks.job_task import register
from workers.process import workplace

app = create_app(broker_url_from_environment())
register(app, workplace)
