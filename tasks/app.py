"""The Celery app: the message contract between producer and workers. SQL is the truth, Redis a doorbell."""

import os
from pathlib import Path

from celery import Celery
from kombu.entity import Queue

from db.dispatch import QUEUES
from tasks.variables import BROKER_VARIABLE

VISIBILITY_SECONDS = 24 * 3600
"""Redelivery by the broker is off in practice: leases in SQL alone recover lost jobs."""


def create_app(broker_url: str | None, patience_seconds: float = 5) -> Celery:
    """The app with every setting that the engine relies on; ``broker_url`` is None where no message is sent.

    ``patience_seconds``: how long to wait for a broker that is silent or absent.
    """
    # not current: one process may hold several apps
    app = Celery("orchestrator", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,  # results are rows and artifacts
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        task_create_missing_queues=False,  # a misspelt queue would collect messages that nobody reads
        task_queues=[Queue(queue) for queue in QUEUES],  # type: ignore[no-untyped-call]
        task_default_queue="cpu",
        # Executing messages count against prefetch: no job is parked behind a long training.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # A lost or killed attempt is retried from SQL, with a cap; the broker would retry without one.
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a job computes on without
        worker_proc_alive_timeout=60,  # 4 by default, too short where many processes start at once
        worker_max_tasks_per_child=2000,  # a fresh process gives back what has leaked
        worker_soft_shutdown_timeout=20,  # seconds for running jobs to end by themselves
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Flower sees only what events tell it.
        worker_send_task_events=True,
        task_send_sent_event=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # forever: work resumes when the broker is back
        broker_pool_limit=2,
        broker_connection_timeout=patience_seconds,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_timeout": patience_seconds,
            "socket_connect_timeout": patience_seconds,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return app


def packages() -> Path:
    """The folder that this process imports our packages from."""
    return Path(__file__).resolve().parent.parent


def broker_url_from_environment() -> str:
    """The broker of this process; a ``KeyError`` names the variable."""
    return os.environ[BROKER_VARIABLE]
