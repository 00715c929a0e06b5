"""Requests byte by byte, for what a client library would not send, and what it would not show."""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit


class Wire:
    """One connection to an API."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
        self._key = key

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, head: str, *headers: str, body: bytes = b"") -> None:
        """`head` is as `POST /v1/tasks`. Nothing is added but the host and the key; the body is sent as it is."""
        lines = [f"{head} HTTP/1.1", "Host: x", *headers]
        if self._key is not None:
            lines.append(f"Authorization: Bearer {self._key}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def more(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, method: str = "POST") -> "Answer":
        """The next answer; interim ones, such as 100, are left out."""
        response = http.client.HTTPResponse(self._socket, method=method)
        response.begin()
        return Answer(
            response.status, {name.lower(): value for name, value in response.headers.items()}, response.read()
        )

    def first_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self._socket.recv(1)
        return line

    def is_closed(self) -> bool:
        """Whether the server ends the connection instead of waiting for another request."""
        return self._socket.recv(1) == b""


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        return json.loads(self.body)
