"""What `celery -A orchestrator.cluster.flower_app` loads: the app that Flower looks through."""

from tasks.app import broker_url_from_environment, create_app

app = create_app(broker_url_from_environment())
# Flower asks from many threads at once, and each holds one connection while it waits for a second: they would
# wait for each other for ever, and no event would be seen.
app.conf.broker_pool_limit = None
