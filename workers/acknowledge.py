"""Acknowledging messages to a broker that does not answer."""

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Releases a message even if the broker did not receive its acknowledgement.

    Kombu's own counts it as unacknowledged until the connection ends, so that one process of the pool is never
    given a job again; and a connection that was only silent does not end. A message that the broker keeps for
    that reason is redelivered, and its claim finds nothing to do.
    """

    def ack(self, delivery_tag: str) -> None:
        """Tell the broker; raises what its client raises."""
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu has no types
        finally:
            # also after a success: the tag goes into a set, so that a second time changes nothing
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
