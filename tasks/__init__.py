"""The Celery app and the message contract between producer and workers."""
