"""A judge's upstream that does what a test says: a real HTTP server, which reads what it is asked."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], str]
_CODE = re.compile(r"The id is ([0-9a-f]{8})\.\Z")
_LABELS = re.compile(r"RUN ([A-Z]) RECORDING")


@dataclass
class Asked:
    body: dict[str, Any]
    headers: dict[str, str]
    connection: socket.socket
    sent: int = 0
    """Bytes that were sent beside the reply."""

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.sent += len(data)

    @property
    def text(self) -> str:
        return str(self.body["messages"][1]["content"])

    @property
    def code(self) -> str:
        found = _CODE.search(self.text)
        assert found
        return found[1]

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(_LABELS.findall(self.text)))


def says(content: str, *, prompt: int = 100, answer: int = 20) -> Reply:
    """A chat completion with this content."""
    usage = {"prompt_tokens": prompt, "completion_tokens": answer}
    return 200, {}, json.dumps({"choices": [{"message": {"content": content}}], "usage": usage})


def scores(asked: Asked, score: Any, reason: str = "because") -> Reply:
    return says(json.dumps({"id": asked.code, "reason": reason, "score": score}))


def ranks(asked: Asked, labels: list[str]) -> Reply:
    return says(json.dumps({"id": asked.code, "reason": "compared", "ranking": labels}))


@dataclass
class JudgeServer:
    answer: Callable[[Asked], Reply]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""


@contextmanager
def judge_server(answer: Callable[[Asked], Reply]) -> Iterator[JudgeServer]:
    served = JudgeServer(answer)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(body, headers, self.connection)
            with lock:
                served.asked.append(asked)
            try:
                self._reply(*served.answer(asked))
            except (BrokenPipeError, ConnectionResetError):  # the judge has gone
                self.close_connection = True

        def _reply(self, status: int, headers: dict[str, str], text: str) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="judge-upstream")
    thread.start()
    try:
        served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
