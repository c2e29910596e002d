"""Send a message per job after the commit that queued it; a lost one is sent again from SQL."""

import functools
import logging
from collections.abc import Iterable

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from db.dispatch import Doorbell
from tasks.code import queue_of

log = logging.getLogger(__name__)


FIRST, OTHERS = 0, 9
"""Priorities as Redis has them: 0 is the highest."""


@functools.cache
def _queue(name: str) -> Queue:
    # an object, since the app knows the queues of its own code alone
    return Queue(name)  # type: ignore[no-untyped-call]  # kombu has no types


def ring(app: Celery, doorbells: Iterable[Doorbell]) -> bool:
    """Publish one message per doorbell; False if the broker cannot be reached, which loses nothing."""
    try:
        with app.producer_or_acquire() as producer:
            for bell in doorbells:
                app.send_task(
                    bell.stage,
                    args=(bell.job_id,),  # no parameters: SQL has them
                    argsrepr=f"run {bell.run_id}, job {bell.job_id}: {bell.label}",  # what Flower shows
                    kwargsrepr="",
                    # where only workers listen that have the code
                    queue=_queue(queue_of(bell.queue, bell.code)),
                    priority=FIRST if bell.first else OTHERS,
                    producer=producer,
                    retry=False,  # nobody waits for a broker here: SQL sends again
                )
    except (OperationalError, OSError) as error:
        log.warning("broker not reached, the reconciler sends again: %s", error)
        return False
    return True
