"""What waits too long, or too much at once, over HTTP: statuses, headers and the shapes of each API."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import select

from registry.models import Exposure
from registry.settings import Settings
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

BODY: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 6,
    "temperature": 0,
}


@pytest.fixture
def http(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[httpx.Client]:
    small = {"base_model": str(tiny_base), "torch_threads": 1, "queue_requests": 1, "inference_batch": 1}
    with (
        serve(settings.model_copy(update=small), serve_model=True) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60) as made,
    ):
        yield made


def test_a_full_queue_says_when_to_come_again(
    http: httpx.Client, api_key: str, watch: Watch, services: Services
) -> None:
    watch.hold(after=1)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(http.post, "/v1/chat/completions", json=BODY)
        assert watch.is_held.wait(60)
        others = [pool.submit(http.post, "/v1/chat/completions", json=BODY) for _ in range(2)]
        ended, waiting = wait(others, timeout=60, return_when=FIRST_COMPLETED)
        assert [each.result().status_code for each in ended] == [429]
        for stream in (False, True):
            refused = http.post("/v1/chat/completions", json={**BODY, "stream": stream})
            assert (refused.status_code, refused.headers["content-type"]) == (429, "application/json")
            assert int(refused.headers["retry-after"]) >= 1
            error = refused.json()["error"]
            assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
            assert "MEMGEN_QUEUE_REQUESTS" in error["message"]
        with (
            openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=api_key, max_retries=0) as client,
            pytest.raises(openai.RateLimitError),
        ):
            client.chat.completions.create(**BODY)
        message = http.post("/v1/messages", json={k: v for k, v in BODY.items() if k != "temperature"})
        assert (message.status_code, message.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(message.headers["retry-after"]) >= 1
        watch.go()
        assert [each.result().status_code for each in (running, *waiting)] == [200, 200]
    with services.sessions() as session:
        assert len(session.scalars(select(Exposure)).all()) == 2


def test_a_request_says_how_long_it_waits(http: httpx.Client, watch: Watch) -> None:
    watch.step_seconds = 0.02
    url, long = "/v1/chat/completions", {**BODY, "max_tokens": 900}
    late = http.post(url, json=long, headers={"X-Memgen-Timeout": "0.5"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "not_finished_in_time")
    assert "within 0.5 s" in late.json()["error"]["message"]
    with ThreadPoolExecutor(1) as pool:
        before = watch.joined
        running = pool.submit(http.post, url, json=long, headers={"X-Memgen-Timeout": "3"})
        while watch.joined == before:
            assert not running.done()
        late = http.post(url, json=BODY, headers={"X-Memgen-Timeout": "0.5"})
        assert (late.status_code, late.json()["error"]["code"]) == (503, "not_begun_in_time")
        assert late.headers["retry-after"]
        assert running.result().status_code == 504
    assert watch.joined == before + 1, "nothing was computed for the one that waited"


def test_an_answer_has_one_row_and_one_that_fails_has_none(
    http: httpx.Client, watch: Watch, services: Services
) -> None:
    watch.step_seconds = 0.02
    url = "/v1/chat/completions"
    late = http.post(url, json={**BODY, "max_tokens": 900}, headers={"X-Memgen-Timeout": "0.3"})
    assert late.status_code == 504
    assert http.post(url, json=BODY).status_code == 200
    with services.sessions() as session:
        assert len(session.scalars(select(Exposure)).all()) == 1


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_time_that_is_none_is_refused(http: httpx.Client, value: str) -> None:
    reply = http.post("/v1/chat/completions", json=BODY, headers={"X-Memgen-Timeout": value})
    assert reply.status_code == 400
    assert "X-Memgen-Timeout" in reply.json()["error"]["message"]
