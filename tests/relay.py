"""A TCP relay in front of a real server, to take it away and to bring it back, in the middle of a request if wanted."""

import contextlib
import socket
import threading
from collections.abc import Callable


class Relay:
    """Passes bytes on, until it is told not to. Its address stays the same."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._budget: int | None = None
        """Pieces that the client may still send before all connections break."""
        self._greeting: bytes | None = None
        """What a new connection gets instead of the server."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accept()

    def away(self) -> None:
        """Connections break, and new ones are refused."""
        # Shut down first: a thread that waits in `accept` would keep the port open.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(timeout=10)
        self.drop()

    def back(self) -> None:
        self._budget = self._greeting = None
        if self._listener.fileno() == -1:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._accept()

    def drop(self) -> None:
        """Every connection breaks now; new ones are taken."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def drop_after(self, pieces: int) -> None:
        """Break every connection as soon as clients have sent so many more pieces."""
        self._budget = pieces

    def greet(self, answer: bytes) -> None:
        """Answer new connections like this, and close them. Those that are open break."""
        self._greeting = answer
        self.drop()

    def close(self) -> None:
        self.away()

    def _accept(self) -> None:
        self._acceptor = self._start(self._serve)

    def _start(self, work: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, name="relay", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        listener = self._listener
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if self._greeting is not None:
                with client, contextlib.suppress(OSError):
                    client.recv(65_536)
                    client.sendall(self._greeting)
                continue
            server = socket.create_connection(self._upstream)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            self._start(self._pass_on, client, server, True)
            self._start(self._pass_on, server, client, False)

    def _pass_on(self, source: socket.socket, target: socket.socket, is_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_client and self._budget is not None:
                    self._budget -= 1
                    if self._budget < 0:
                        self.drop()
                        break
                target.sendall(data)
        with self._lock:
            self._open.discard(source)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        source.close()
