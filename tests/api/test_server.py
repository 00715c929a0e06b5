"""How the API's process leaves: not ready at once, answering for a notice, then only what was begun, up to a limit."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.local.ports import pick_free_port
from api.server import DrainingServer, make_server
from registry.settings import Settings
from tests.api.watched import Watch, watch

__all__ = ["watch"]

STREAM = {
    "model": "base",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 12,
    "temperature": 0,
    "stream": True,
}


@dataclass
class Live:
    server: DrainingServer
    thread: threading.Thread
    client: httpx.Client

    def sigterm(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)

    def chat(self, **more: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json={**STREAM, "stream": False, "max_tokens": 2, **more})


@pytest.fixture
def base_settings(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny_base)})


@contextmanager
def live(settings: Settings, api_key: str, *, notice_seconds: float, drain_seconds: float) -> Iterator[Live]:
    port = pick_free_port()
    server = make_server(
        settings, host="127.0.0.1", port=port, notice_seconds=notice_seconds, drain_seconds=drain_seconds
    )
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            wait_for(lambda: thread.is_alive() and server.started and client.get("/readyz").status_code == 200)
            yield Live(server, thread, client)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_refused(client: httpx.Client) -> bool:
    try:
        client.get("/healthz")
    except httpx.ConnectError:
        return True
    return False


def read_events(reply: httpx.Response) -> list[Any]:
    return [
        line[6:] if line == "data: [DONE]" else json.loads(line[6:])
        for line in reply.iter_lines()
        if line.startswith("data: ")
    ]


def test_a_leaving_process_is_not_ready_and_answers_until_its_notice_is_over(
    base_settings: Settings, api_key: str
) -> None:
    with live(base_settings, api_key, notice_seconds=3600, drain_seconds=30) as it:
        before = it.chat()
        assert (before.status_code, before.headers.get("connection")) == (200, None)
        it.sigterm()
        readiness = it.client.get("/readyz")
        assert readiness.status_code == 503
        assert readiness.json()["checks"]["process"] == "stopping"
        during = it.chat()
        assert (during.status_code, during.headers["connection"]) == (200, "close")
        assert it.client.get("/healthz").status_code == 200
        it.sigterm()  # a second one does not wait for the notice
        it.thread.join(timeout=30)
        assert not it.thread.is_alive()
        assert is_refused(it.client)


def test_an_answer_that_was_begun_is_whole_though_nothing_new_is_accepted(
    base_settings: Settings, api_key: str, watch: Watch
) -> None:
    with live(base_settings, api_key, notice_seconds=0, drain_seconds=3600) as it:
        whole = it.chat(max_tokens=12).json()["choices"][0]["message"]["content"]
        watch.hold(after=3)
        with it.client.stream("POST", "/v1/chat/completions", json=STREAM) as reply:
            it.sigterm()
            with httpx.Client(base_url=it.client.base_url) as other:
                wait_for(lambda: is_refused(other))
            watch.go()
            events = read_events(reply)
        assert events[-1] == "[DONE]"
        deltas = [choice["delta"] for event in events[:-1] for choice in event["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == whole


def test_at_the_limit_a_stream_ends_in_words_and_a_waiting_request_may_come_again(
    base_settings: Settings, api_key: str, watch: Watch
) -> None:
    with live(base_settings, api_key, notice_seconds=0, drain_seconds=0.3) as it:
        watch.step_seconds = 0.1
        waiting: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: waiting.append(it.chat(max_tokens=900)))
        with it.client.stream("POST", "/v1/chat/completions", json={**STREAM, "max_tokens": 900}) as reply:
            asking.start()
            wait_for(lambda: len(it.server.server_state.tasks) == 2)
            it.sigterm()
            events = read_events(reply)
        asking.join(timeout=30)
        assert events[-1]["error"]["code"] == "inference_unavailable"
        assert events[-1]["error"]["message"] == "the service is stopping"
        [refused] = waiting
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        it.thread.join(timeout=30)
        assert not it.thread.is_alive()


def test_event_streams_of_jobs_do_not_hold_a_stop_up(base_settings: Settings, api_key: str) -> None:
    with live(base_settings, api_key, notice_seconds=0, drain_seconds=3600) as it:
        it.client.post("/v1/tasks", json={"name": "greet"}).raise_for_status()
        it.client.post("/v1/adapters", json={"name": "bot"}).raise_for_status()
        body = {"kind": "train_weaver", "adapter": "bot", "task": "greet"}
        job = it.client.post("/v1/jobs", json=body).json()
        with it.client.stream("GET", f"/v1/jobs/{job['id']}/stream") as reply:
            lines = reply.iter_lines()
            while next(lines) != "event: job":
                pass
            it.sigterm()
            assert [line for line in lines if line.startswith("event:")] == []
        assert job["state"] == "queued"
        it.thread.join(timeout=30)
        assert not it.thread.is_alive()
