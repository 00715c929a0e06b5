"""The playground against a real model, as its script speaks to the server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.dashboard.visits import CSRF_HEADER
from registry.settings import Settings
from tests.api.live_api import serve


@pytest.fixture
def browser(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[httpx.Client]:
    with (
        serve(settings.model_copy(update={"base_model": str(tiny_base)}), serve_model=True) as url,
        httpx.Client(base_url=url, follow_redirects=True, timeout=60) as http,
    ):
        page = http.post("/ui/sign-in", data={"key": api_key, "next": "/ui/playground"})
        assert page.status_code == 200
        http.headers[CSRF_HEADER] = re.search(r'data-csrf="([0-9a-f]+)"', page.text).group(1)
        yield http


def test_an_answer_streams_with_its_tokens_and_counts_feedback(browser: httpx.Client) -> None:
    asked = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5}
    answer = browser.post("/ui/playground/answer", json=asked)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    tokens = [
        token
        for event in events
        for each in event["choices"]
        for token in (each["logprobs"] or {"content": []})["content"]
    ]
    assert 1 <= len(tokens) <= 5
    assert [event["memgen"]["insertions"] for event in events if "memgen" in event] == [[]]
    assert events[-1]["usage"]["prompt_tokens"] > 0, "by which an insertion's place in the answer is known"
    rated = browser.post("/ui/playground/feedback", json={"completion_id": events[0]["id"], "reward": 1})
    assert rated.json() == {"counted": True}


def test_what_is_wrong_is_told_in_words(browser: httpx.Client) -> None:
    hi = [{"role": "user", "content": "hi"}]
    for asked, status, code in (
        ({"model": "nobody", "messages": hi}, 404, "adapter_not_found"),
        ({"model": "base", "messages": []}, 422, "invalid_messages"),
        ({"model": "base", "messages": hi, "temperature": "hot"}, 422, "invalid"),
        ({"messages": hi}, 422, "invalid"),
        ([], 422, "invalid"),
    ):
        answer = browser.post("/ui/playground/answer", json=asked)
        assert (answer.status_code, "detail" in answer.json()) == (status, True), (asked, answer.text, code)
    assert browser.post("/ui/playground/feedback", json={"completion_id": "chatcmpl-x", "reward": 1}).status_code == 404
    browser.headers[CSRF_HEADER] = "0" * 64
    assert browser.post("/ui/playground/answer", json={"model": "base", "messages": hi}).status_code == 403
