"""What comes over the wire, piece by piece and by itself: lines, events, chunks, refusals, bodies."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from memgen_client.answers import fitting
from memgen_client.content import Content
from memgen_client.errors import (
    ApiError,
    Busy,
    Conflict,
    Invalid,
    NotFound,
    ServiceFailed,
    Unavailable,
    UnexpectedReply,
    WaitTimedOut,
    error_class,
)
from memgen_client.following import SILENCE_SECONDS, Following
from memgen_client.models.jobs import JobEvent
from memgen_client.paths import path
from memgen_client.refusals import refusal
from memgen_client.streams import AnswerChunks, Events, Lines, ServerSentEvent, as_object
from memgen_client.wire import json_of, query

SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_a_line_of_a_stream_ends_at_a_newline_only(size: int) -> None:
    text = f"a{SEPARATORS}b"
    stream = f"data: {text}\r\n\ndata: é{text}\n\n: torn".encode()
    lines = Lines()
    found = [line for start in range(0, len(stream), size) for line in lines.feed(stream[start : start + size])]
    assert found == [f"data: {text}", "", f"data: é{text}", ""]


def test_server_sent_events() -> None:
    events = Events()
    lines = ["id: 7", "event: event", 'data: {"a": 1}', "", ": keep-alive", "", 'data: {"b": 2}', ""]
    found = [event for line in lines if (event := events.feed(line))]
    assert found == [ServerSentEvent(7, "event", {"a": 1}), ServerSentEvent(0, "message", {"b": 2})]


def test_chunks_end_where_the_service_says_so() -> None:
    chunks = AnswerChunks()
    assert chunks.feed(": keep-alive") is None
    assert chunks.feed('data: {"id": "x"}') == {"id": "x"}
    assert not chunks.has_ended
    assert chunks.feed("data: [DONE]") is None
    assert chunks.has_ended
    with pytest.raises(ApiError) as error:
        AnswerChunks().feed('data: {"error": {"message": "gone", "code": "internal_error", "param": null}}')
    assert (error.value.status, error.value.code, error.value.detail) == (200, "internal_error", "gone")


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_a_stream_of_something_else_is_said_to_be_so(text: str) -> None:
    with pytest.raises(UnexpectedReply, match="expected"):
        as_object(text)


def test_refusals_in_each_of_the_service_s_shapes() -> None:
    problem = {
        "type": "urn:memgen:problem:invalid_request",
        "detail": "body.training.steps: too small",
        "errors": [{"place": "body.training.steps", "message": "too small", "got": "0"}],
    }
    found = refusal(422, problem, {"x-request-id": "r1"}, "u")
    assert isinstance(found, Invalid)
    assert (found.code, found.param, found.request_id) == ("invalid_request", "training.steps", "r1")
    openai = {
        "error": {"message": "none", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    }
    found = refusal(404, openai, {}, "u")
    assert isinstance(found, NotFound)
    assert (found.code, found.param, found.detail) == ("model_not_found", "model", "none")
    anthropic = {"type": "error", "error": {"type": "overloaded_error", "message": "m", "details": {"error_code": "x"}}}
    found = refusal(529, anthropic, {"retry-after": "5"}, "u")
    assert isinstance(found, Unavailable)
    assert (found.code, found.detail, found.retry_after) == ("x", "m", 5.0)
    found = refusal(403, {}, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "http://s3")
    assert (found.code, found.retry_after) == ("http_403", None)
    assert "MEMGEN_API_URL" in found.detail


def test_each_status_has_its_class_and_unknown_ones_their_kind() -> None:
    assert [error_class(status) for status in (409, 429, 500, 503, 418)] == [
        *(Conflict, Busy, ServiceFailed, Unavailable, ApiError)
    ]
    assert Conflict(409, "stale_alias", "moved").advice == "look again, then decide"
    assert Conflict(409, "of_a_newer_service", "moved").advice == ""


def test_a_reply_that_is_no_json_object_is_not_taken_for_one() -> None:
    request = httpx.Request("GET", "http://x/v1/tasks")
    for content in (b"<html>", b"[]", b"", b"null"):
        with pytest.raises(UnexpectedReply, match="MEMGEN_API_URL"):
            json_of(httpx.Response(200, content=content, request=request))
    assert json_of(httpx.Response(200, content=b"{}", request=request)) == {}


def test_fields_of_newer_services_are_kept_and_missing_ones_are_named() -> None:
    event = {"seq": 1, "at": "2026-01-01T00:00:00Z", "level": "info", "message": "m", "data": {}, "colour": "red"}
    assert (fitting(JobEvent, event).model_extra or {})["colour"] == "red"
    with pytest.raises(UnexpectedReply, match="message.*memgen-client") as error:
        fitting(JobEvent, {name: value for name, value in event.items() if name != "message"})
    assert "no JobEvent" in str(error.value)


def test_paths_and_queries_hold_what_users_name() -> None:
    assert path("adapters", "a/../b?c", "versions", 7) == "/v1/adapters/a%2F..%2Fb%3Fc/versions/7"
    assert query({"task": None, "held_out": True, "limit": 50}) == {"held_out": "true", "limit": "50"}


def test_following_outlives_silence_and_repeats_nothing() -> None:
    following = Following("j", now=0.0)
    running = {"id": "j", "state": "running"}
    assert following.take(ServerSentEvent(3, "event", {"seq": 3}), 1.0) is not None
    assert following.take(ServerSentEvent(0, "job", running), 1.0) is not None
    assert following.take(ServerSentEvent(0, "job", running), 2.0) is None
    assert (following.after, following.has_ended, following.silence(2.0)) == (3, False, SILENCE_SECONDS)
    away = Unavailable(503, "database_unavailable", "away")
    following.broke(away, 100.0)  # the job was quiet for long, and the service is gone just now
    following.broke(away, 159.0)
    with pytest.raises(Unavailable):
        following.broke(away, 161.0)
    with pytest.raises(NotFound):
        following.broke(NotFound(404, "job_not_found", "no"), 3.0)
    assert following.take(ServerSentEvent(0, "job", running | {"state": "failed"}), 3.0) is not None
    assert following.has_ended


def test_a_wait_ends_in_time_also_where_the_job_says_much() -> None:
    following = Following("j", now=0.0, timeout=10.0)
    assert following.silence(4.0) == 6.0
    with pytest.raises(WaitTimedOut, match="10 s"):
        following.silence(10.0)
    with pytest.raises(WaitTimedOut):
        following.take(ServerSentEvent(1, "event", {}), 11.0)
    assert following.take(None, 9.0) is None
    with pytest.raises(WaitTimedOut):  # a stream of comments alone, as while the database is away
        following.take(None, 11.0)


def test_bodies_are_sent_as_they_are_read_and_told_of(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_bytes(b"x" * 150_000)
    told: list[tuple[int, int | None]] = []
    content = Content.of(str(file), lambda sent, total: told.append((sent, total)))
    assert content.can_restart
    assert b"".join(content.blocks()) == file.read_bytes()
    assert told == [(65_536, 150_000), (131_072, 150_000), (150_000, 150_000)]

    async def read(given: Content) -> bytes:
        return b"".join([block async for block in given.blocks_async()])

    assert asyncio.run(read(content)) == file.read_bytes()
    items = [{"n": n, "text": "é" * 20_000} for n in range(5)]

    async def arriving() -> AsyncIterator[dict[str, object]]:
        for item in items:
            yield item

    lines = "".join(json.dumps(item) + "\n" for item in items).encode()
    assert b"".join(Content.of(items, None).blocks()) == lines
    for source in (items, arriving()):
        assert asyncio.run(read(Content.of(source, None))) == lines
    assert not Content.of(items, None).can_restart
    with pytest.raises(TypeError, match="AsyncClient"):
        list(Content.of(arriving(), None).blocks())
