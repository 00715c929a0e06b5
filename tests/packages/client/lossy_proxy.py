"""A proxy that passes requests on to a real service and loses answers: all was done, and nobody learns of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class LossyProxy:
    def __init__(self, url: str) -> None:
        self.upstream = url
        self.lose = 0
        """How many of the next answers are lost."""
        self.refuse = 0
        """How many of the next requests are answered 429 here, after their body was read."""
        self.passed: list[str] = []
        """Requests that reached the service, as `POST /v1/keys`."""
        self.url = ""


@contextmanager
def lossy(url: str) -> Iterator[LossyProxy]:
    proxy = LossyProxy(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            self.close_connection = True
            if proxy.refuse:
                proxy.refuse -= 1
                self.send_response(429)
                self.send_header("Retry-After", "0")
                self.send_header("Connection", "close")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "transfer-encoding")}
            with httpx.Client(trust_env=False, timeout=30) as http:
                answer = http.request(self.command, proxy.upstream + self.path, content=body, headers=headers)
            proxy.passed.append(f"{self.command} {self.path.partition('?')[0]}")
            if proxy.lose:
                proxy.lose -= 1
                return
            self.send_response(answer.status_code)
            for name in ("content-type", "retry-after", "x-request-id"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_request(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="lossy-proxy")
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
