"""An app process for tests: answers 200 on every path, and forks a child that will not end by itself.

`fake_app.py <port>`; port 0 serves nothing. A GET of /die ends it.
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/die":
            os._exit(3)
        self.send_response(200)
        self.end_headers()


def linger() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    if os.fork() == 0:
        linger()
    if int(sys.argv[1]):
        HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    time.sleep(600)
