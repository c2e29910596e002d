"""Renews the lease of a running attempt from a thread, and stops the attempt once it is fenced out."""

import _thread
import logging
import signal
import threading
from types import FrameType, TracebackType

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.engine import write
from db.jobs import LEASE_SECONDS, Claim, renew

log = logging.getLogger(__name__)


class LeaseLost(BaseException):
    """Another attempt owns the job, or nobody may: stop and discard. No ``except Exception`` holds it up."""


class Heartbeat:
    """Holds a claim while its block runs; raises ``LeaseLost`` in the main thread when the claim is lost.

    Outside the main thread nothing is interrupted: the finished work is then refused by the fence.
    """

    def __init__(self, engine: Engine, claim: Claim) -> None:
        self._engine = engine
        self._claim = claim
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._interrupts = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self._interrupts:
            self._previous = signal.signal(signal.SIGUSR2, self._lost)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._interrupts:
            signal.signal(signal.SIGUSR2, self._previous)

    def _beat(self) -> None:
        while not self._stopped.wait(LEASE_SECONDS / 4):
            try:
                held = write(self._engine, lambda session: renew(session, self._claim))
            except DBAPIError as error:
                log.warning("lease of job %s not renewed, trying again: %s", self._claim.job_id, error.orig)
                continue
            if not held:
                if self._interrupts and not self._stopped.is_set():
                    _thread.interrupt_main(signal.SIGUSR2)
                return

    def _lost(self, number: int, frame: FrameType | None) -> None:
        raise LeaseLost
