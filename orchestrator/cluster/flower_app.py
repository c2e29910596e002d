"""What `celery -A orchestrator.cluster.flower_app` loads: the app that Flower uses."""

from tasks.app import broker_url_from_environment, create_app

app = create_app(broker_url_from_environment())
# Flower calls from many threads at once, and each holds one connection while it waits for a second one: with a
# limit they deadlock, and no event arrives.
app.conf.broker_pool_limit = None
