"""Acknowledging messages to a broker that does not answer."""

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Lets go of a message also where the broker did not hear that it is acknowledged.

    Kombu's own counts it as being worked on until the connection ends, so that one process of the pool is never
    given a job again; and a connection that was only silent does not end. A doorbell that the broker keeps for
    that reason rings once more when it is redelivered, and its claim finds nothing to do.
    """

    def ack(self, delivery_tag: str) -> None:
        """Tell the broker; raises what its client raises."""
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu has no types
        finally:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
