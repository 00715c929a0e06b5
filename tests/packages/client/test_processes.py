"""The clients over what a program does around them: forks, event loops, other processes, keys out of files."""

import asyncio
import gc
import json
import os
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from memgen_client import ApiUnreachable, AsyncClient, Client, ClientError, Conflict, JobEnded, NotAuthenticated
from memgen_client.errors import Busy, WaitTimedOut

ERRORS = [
    Conflict(409, "stale_alias", "moved", param="expected", request_id="r1"),
    Busy(429, "queue_full", "full", retry_after=3.0),
    ApiUnreachable("http://x", "gone", was_sent=False),
    JobEnded("j", "failed", "nan"),
    WaitTimedOut("j", 2.0),
]


@pytest.fixture
def ports() -> Iterator[str]:
    """A server that is alive, and says from which port it was asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps({"status": "ok", "port": self.client_address[1]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="ports")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def port_of(client: Client) -> object:
    return (client.health.live().model_extra or {})["port"]


def test_a_child_shares_no_connection_with_its_parent(ports: str) -> None:
    with Client(ports, "") as client:
        own = port_of(client)
        assert port_of(client) == own, "a connection is kept"
        child = os.fork()
        if child == 0:
            shared = True
            try:
                shared = port_of(client) == own
            finally:
                os._exit(3 if shared else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert port_of(client) == own


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the first loop's connection
def test_an_asynchronous_client_outlives_an_event_loop(ports: str) -> None:
    client = AsyncClient(ports, "")

    async def ask(*, close: bool) -> str:
        found = await client.health.live()
        if close:
            await client.close()
        return found.status

    assert asyncio.run(ask(close=False)) == "ok"
    assert asyncio.run(ask(close=True)) == "ok"
    gc.collect()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_travel_between_processes(error: ClientError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_a_refusal_says_its_code_and_its_request() -> None:
    assert str(ERRORS[0]) == "moved (409 stale_alias, request r1)"
    assert str(ERRORS[1]) == "full (429 queue_full)"


def test_a_key_out_of_a_file_is_taken_and_one_that_can_be_none_is_not_told(ports: str) -> None:
    with Client(ports, "mg_any\n") as client:
        assert client.health.live().status == "ok"
    for key in ("mg_schlüssel", "mg_secret\nmg_other"):
        with pytest.raises(NotAuthenticated) as refused:
            Client(ports, key)
        assert "mg_" not in str(refused.value)


def test_a_header_that_none_may_have_is_refused_before_it_is_sent(ports: str) -> None:
    with Client(ports, "") as client, pytest.raises(ValueError, match="Idempotency-Key"):
        client.jobs.train("bot", "t", idempotency_key="a\nb")
