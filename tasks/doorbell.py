"""Send a message per job after the commit that queued it; a lost one is sent again from SQL."""

import logging
from collections.abc import Iterable

from celery import Celery
from kombu.exceptions import OperationalError

from db.dispatch import Doorbell

log = logging.getLogger(__name__)


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
                    queue=bell.queue,
                    producer=producer,
                    retry=False,  # nobody waits for a broker here: SQL sends again
                )
    except (OperationalError, OSError) as error:
        log.warning("broker not reached, the reconciler sends again: %s", error)
        return False
    return True


def waiting_messages(app: Celery, queue: str) -> int | None:
    """Messages that wait in a queue; None if the broker cannot be reached."""
    with app.connection_for_read() as connection:
        try:
            # passive: asks about the queue without making it
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
        except (OperationalError, OSError, *connection.connection_errors) as error:
            log.warning("broker not reached: %s", error)
            return None
        except connection.channel_errors:
            return 0  # the queue is made by its first message
