"""Renew the lease of a running attempt from a thread, and stop the attempt once it is fenced out."""

import _thread
import faulthandler
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.engine import Unreachable, write
from db.jobs import Claim, renew
from db.limits import LEASE_SECONDS

log = logging.getLogger(__name__)

BEAT_SECONDS = LEASE_SECONDS / 4  # so that a few beats may fail before the lease ends
HANG_SECONDS = 4 * LEASE_SECONDS
"""A process whose threads are starved for this long, or that does not stop when told to, is killed."""


class LeaseLost(BaseException):
    """Another attempt owns the job, or none may: stop and discard. No ``except Exception`` catches it."""


class Heartbeat:
    """Holds a claim while its block runs; raises ``LeaseLost`` in the main thread when the claim is lost.

    Outside the main thread nothing is interrupted: the finished work is then refused by the fence. Where it is
    ``watched``, a watchdog that needs no interpreter ends the process when the block hangs: with the
    interpreter's lock held, or without reacting to ``LeaseLost``.
    """

    def __init__(self, engine: Engine, claim: Claim, *, watched: bool) -> None:
        self._engine = engine
        self._claim = claim
        self._stopped = threading.Event()
        self._lost = threading.Event()
        self._threads = [threading.Thread(target=self._beat, name="heartbeat", daemon=True)]
        # handlers of signals can be set there alone
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._disturbs = True
        if watched:
            self._threads.append(threading.Thread(target=self._watch, name="watchdog", daemon=True))

    def __enter__(self) -> "Heartbeat":
        if self._interrupts:
            self._previous = signal.signal(signal.SIGUSR2, self._stop)
        for thread in self._threads:
            thread.start()
        return self

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """``LeaseLost`` waits for the end of this block."""
        self._disturbs = False
        yield
        # no ``finally``: after an exception ``__exit__`` follows, which sets False too
        self._disturbs = True
        if self._lost.is_set():
            raise LeaseLost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disturbs = False  # from here on the fence refuses the result of a lost claim
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        faulthandler.cancel_dump_traceback_later()
        if self._interrupts:
            signal.signal(signal.SIGUSR2, self._previous)

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                held = write(self._engine, lambda session: renew(session, self._claim), BEAT_SECONDS)
            except (DBAPIError, Unreachable) as error:
                log.warning("lease of job %s not renewed, trying again: %s", self._claim.job_id, error)
                continue
            if not held:
                self._lost.set()
                if self._interrupts and not self._stopped.is_set():
                    # as if the signal had come: its handler raises in the main thread
                    _thread.interrupt_main(signal.SIGUSR2)
                return

    def _watch(self) -> None:
        """Keep postponing the process's end for as long as the attempt is held."""
        while not self._lost.is_set():
            # each call puts off the one before; its timer runs in C, whoever holds the lock
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=2)
            if self._stopped.wait(BEAT_SECONDS):
                return

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._disturbs:
            raise LeaseLost
