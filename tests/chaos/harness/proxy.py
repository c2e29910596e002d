"""What stands between a client and its broker, and may cut, swallow or delay what passes."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path


class Proxy:
    """Listens on a unix socket and passes bytes on to another one, both ways; for a ``with`` block."""

    def __init__(self, path: Path, upstream: Path) -> None:
        self.path, self.upstream = path, upstream
        self.delay_seconds = 0.0
        self.passed = 0
        """Connections so far."""
        self._open = threading.Event()
        self._open.set()
        self._server = socket.socket(socket.AF_UNIX)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Proxy":
        self._server.bind(str(self.path))
        self._server.listen(128)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        self.open()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def cut(self) -> int:
        """End every connection; new ones are taken. Returns how many there were."""
        pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def swallow(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._open.clear()

    def open(self) -> None:
        """Everything comes through, what was held up too."""
        self._open.set()

    def _start(self, target, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, name="proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # the server was closed
            while True:
                client, upstream = self._server.accept()[0], socket.socket(socket.AF_UNIX)
                with suppress(OSError):
                    upstream.connect(str(self.upstream))  # where nobody listens, both ends close at once
                self.passed += 1
                self._pairs.append((client, upstream))
                self._ends += [client, upstream]
                for source, target in ((client, upstream), (upstream, client)):
                    self._start(self._pass_on, source, target)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                time.sleep(self.delay_seconds)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
