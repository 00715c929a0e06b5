"""A port in front of a server that can be shut: then it takes connections, and nothing passes."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

_HOST = "127.0.0.1"


class Gate:
    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._listener = socket.create_server((_HOST, 0))
        self._open = threading.Event()
        self._open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        place = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{place}@{_HOST}:{self._listener.getsockname()[1]}"))

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection((_HOST, self._target.port)) as server:
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._open.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
