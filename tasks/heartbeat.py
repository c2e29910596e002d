"""One thread per process that renews the lease of the attempt it executes, and stops one that is fenced out."""

import _thread
import faulthandler
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.engine import Unreachable, write
from db.jobs import Held, renew
from db.limits import LEASE_SECONDS

log = logging.getLogger(__name__)

BEAT_SECONDS = LEASE_SECONDS / 4  # so that a few beats may fail before the lease ends
HANG_SECONDS = 4 * LEASE_SECONDS
"""A process whose threads are starved for this long, or that does not stop when told to, is killed."""


class LeaseLost(BaseException):
    """Another attempt owns the job, or none may: stop and discard. No ``except Exception`` catches it."""


class Heartbeat:
    """Holds one claim after another; ``LeaseLost`` is raised in the main thread when one is lost.

    Outside the main thread nothing is interrupted: the finished work is then refused by the fence. Where it is
    ``watched``, a watchdog that needs no interpreter ends the process when a job hangs: with the interpreter's
    lock held, or without reacting to ``LeaseLost``.
    """

    def __init__(self, engine: Engine, *, watched: bool) -> None:
        self._engine = engine
        self.watched = watched
        self._held: Held | None = None
        self._since = 0.0
        """When it was claimed, by the monotonic clock."""
        self._lost: Held | None = None
        self._disturbs = False
        # handlers of signals can be set there alone
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def _start(self) -> None:
        """Begin with the first claim, that is in the process that executes it and not in its parent."""
        if self._interrupts:
            signal.signal(signal.SIGUSR2, self._stop)
        self._thread = threading.Thread(target=self._beat_forever, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Hold nothing more: the thread ends, and with it its hold on the database's connections."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def holding(self, held: Held) -> Iterator[None]:
        """Renew the lease of ``held``, which has just been claimed, for as long as the block runs."""
        if self._thread is None:
            self._start()
        self._since, self._held, self._lost = time.monotonic(), held, None
        self._disturbs = True
        try:
            try:
                yield
            finally:
                self._let_go()
        finally:
            # once more, since LeaseLost may have come before the first had done anything
            self._let_go()

    def calm(self) -> None:
        """Raise ``LeaseLost`` no more: from here on the fence refuses the result of a lost claim."""
        self._disturbs = False

    def _let_go(self) -> None:
        self._disturbs = False
        self._held = self._lost = None

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """``LeaseLost`` waits for the end of this block."""
        self._disturbs = False
        yield
        # no ``finally``: after an exception the end of ``holding`` follows, which sets False too
        self._disturbs = True
        if self._is_lost():
            raise LeaseLost

    def _beat_forever(self) -> None:
        while not self._ended.is_set():
            if self.watched and not self._is_lost():
                # each call puts off the one before; its timer runs in C, whoever holds the lock
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=2)
            self._ended.wait(BEAT_SECONDS)
            held = self._held
            # one that was claimed since the last beat has most of its lease before it
            if held is not None and time.monotonic() - self._since >= BEAT_SECONDS / 2:
                self._beat(held)

    def _beat(self, held: Held) -> None:
        try:
            renewed = write(self._engine, lambda session: renew(session, held), BEAT_SECONDS)
        except (DBAPIError, Unreachable) as error:
            log.warning("lease of job %s not renewed, trying again: %s", held.job_id, error)
            return
        # the block may have ended meanwhile, and another begun
        if not renewed and self._held is held:
            self._lost = held
            if self._interrupts:
                # as if the signal had come: its handler raises in the main thread
                _thread.interrupt_main(signal.SIGUSR2)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # a signal that comes late may not stop the claim that follows
        if self._disturbs and self._is_lost():
            raise LeaseLost

    def _is_lost(self) -> bool:
        # of the claim that is held now: the thread may tell of one that has just ended
        lost = self._lost
        return lost is not None and lost is self._held
