"""The consumer: what `celery -A workers.app` loads."""
