"""Upstreams that hang, break off, refuse, or send garbage: what the client sees, and what is done again."""

import http.client as http_client
import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import product
from typing import Any

import httpx
import openai
import pytest

from tests.api.gateway.conftest import UPSTREAM_KEY
from tests.api.gateway.upstream_server import HELLO, Received, UpstreamServer, chunk, completion, say_hello

HI: list[Any] = [{"role": "user", "content": "hi"}]
BODY = {"model": "strong/gpt-5", "messages": HI}
Serving = Callable[..., AbstractContextManager[str]]
HttpOf = Callable[[str], httpx.Client]


def post(http: httpx.Client, *, stream: bool = False, **more: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={**BODY, "stream": stream}, **more)


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The error of a reply, or the one that ends its stream."""
    text = reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        *_, last, empty = text.split("\n\n")
        assert empty == ""
        text = last.removeprefix("data: ")
    error: dict[str, Any] = json.loads(text)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def told(reply: httpx.Response) -> str:
    """The content that a stream brought before it ended."""
    events = [event.removeprefix("data: ") for event in reply.text.split("\n\n") if event.startswith("data: {")]
    chunks = [json.loads(event) for event in events]
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks if "choices" in each)


def test_an_error_keeps_its_status_and_words(http: httpx.Client, upstream: UpstreamServer) -> None:
    said = {"message": "no such luck", "type": "some_error", "param": "messages", "code": "odd"}
    for status, stream in product((400, 401, 403, 404, 413, 422, 429, 500, 503), (False, True)):
        upstream.play = partial(Received.reply, body={"error": said}, status=status, Retry_After="7")
        reply = post(http, stream=stream)
        assert reply.status_code == status
        message = f"upstream 'strong' answered {status}: no such luck"
        assert error_of(reply) == {**said, "message": message}
        assert reply.headers["retry-after"] == "7"


def test_every_shape_of_an_error_becomes_openais(http: httpx.Client, upstream: UpstreamServer) -> None:
    shapes: list[tuple[bytes, str | None]] = [
        (b"<html>bad gateway</html>", ": <html>bad gateway</html>"),
        (b"", ""),
        (b"\xff\xfe", ": \ufffd\ufffd"),
        (b'"text"', ": text"),
        (b'{"detail": [{"msg": "wrong"}]}', ': [{"msg": "wrong"}]'),
        (b'{"object": "error", "message": "old vLLM", "code": 400}', ": old vLLM"),
        (b'{"error": "a text"}', ": a text"),
        (b'{"error": {"message": {"a": 1}, "code": 42, "type": null}}', ': {"a": 1}'),
        (b'{"error": null}', ""),
        (b'[{"error": {"code": 400, "message": "no such field", "status": "INVALID_ARGUMENT"}}]', ": no such field"),
        (b"[]", ""),
        (b"[" * 100_000, None),
        (b'{"error": {"message": "' + b"x" * 200_000 + b'"}}', None),
    ]
    for body, message in shapes:
        upstream.play = partial(Received.reply, body=body, status=502)
        reply = post(http)
        assert reply.status_code == 502
        error = error_of(reply)
        assert len(error["message"]) <= 2000
        if message is not None:
            assert error["message"] == f"upstream 'strong' answered 502{message}"
        assert error["type"] == "server_error"


def test_the_stock_client_raises_its_own_errors(client: openai.OpenAI, upstream: UpstreamServer) -> None:
    upstream.play = lambda request: request.reply({"error": {"message": "slow down", "code": "rate"}}, 429)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="strong/gpt-5", messages=HI)
    assert caught.value.code == "rate"


def test_what_is_neither_answer_nor_error_is_none(http: httpx.Client, upstream: UpstreamServer) -> None:
    for status, stream in product((204, 301, 302, 307), (False, True)):
        upstream.play = partial(Received.reply, body=b"", status=status, Location="http://169.254.169.254/latest")
        reply = post(http, stream=stream)
        assert (reply.status_code, error_of(reply)["code"]) == (502, "outbound_failed")
    assert len(upstream.seen) == 8, "no redirect is followed"


def test_a_garbage_reply_is_an_error(http: httpx.Client, upstream: UpstreamServer) -> None:
    for body in (
        b"not json",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [3]}',
        b'{"choices": {"a": 1}}',
        b'{"choices": [{"index": 0, "message": {}}',
        b"[" * 100_000,
        b"\xff",
    ):
        upstream.play = partial(Received.reply, body=body)
        reply = post(http)
        assert (reply.status_code, error_of(reply)["code"]) == (502, "outbound_failed"), body


def test_an_error_with_a_good_status_is_one(http: httpx.Client, upstream: UpstreamServer) -> None:
    upstream.play = lambda request: request.reply({"error": {"message": "quota", "code": 429}})
    reply = post(http)
    assert (reply.status_code, error_of(reply)["code"]) == (429, "429")


GARBAGE = (
    b"data: {broken\n\n",
    b"data: 17\n\n",
    b"data: [1]\n\n",
    b"<html>\n\n",
    b"\x00\xff\xfe\n\n",
    b'data: {"choices": "\xff"}\n\n',
    b"data: " + b"[" * 100_000 + b"\n\n",
    b"x" * 4_100_000,
    b"data: {}\n" * 500_000,
)


def test_garbage_in_a_stream_ends_it_with_an_error(http: httpx.Client, upstream: UpstreamServer) -> None:
    def play(request: Received, garbage: bytes) -> None:
        request.begin()
        for each in HELLO[:3]:
            request.event(each)
        request.send(garbage)
        request.wait_until_left()

    for garbage in GARBAGE:
        upstream.play = partial(play, garbage=garbage)
        reply = post(http, stream=True)
        assert reply.status_code == 200
        assert error_of(reply)["code"] == "outbound_failed"
        assert told(reply) == "Hello"
        assert "[DONE]" not in reply.text
        assert upstream.seen[-1].left.wait(5), "the upstream is not left waiting"


def test_an_answer_of_another_type_is_an_error(http: httpx.Client, upstream: UpstreamServer) -> None:
    """Compressed ones too: a few bytes of it may be gigabytes."""
    whole = completion({"content": "Hello"})
    for kind in ("application/json", "text/html", ""):
        upstream.play = partial(Received.reply, body=whole, Content_Type=kind)
        reply = post(http, stream=True)
        assert (reply.status_code, error_of(reply)["code"]) == (502, "outbound_failed")
    for stream, kind in ((True, "text/event-stream"), (False, "application/json")):
        upstream.play = partial(Received.reply, body=b"\x1f\x8b", Content_Encoding="gzip", Content_Type=kind)
        reply = post(http, stream=stream)
        assert (reply.status_code, error_of(reply)["code"]) == (502, "outbound_failed")


def test_a_stream_that_breaks_off_ends_in_an_error(http: httpx.Client, upstream: UpstreamServer) -> None:
    def play(request: Received, how: str) -> None:
        request.begin()
        for each in HELLO[:3]:
            request.event(each)
        if how == "cut event":
            request.send(b'data: {"mangled')
        if how == "clean end":
            request.end()
        else:
            request.break_off()

    for how in ("reset", "clean end", "cut event"):
        upstream.play = partial(play, how=how)
        reply = post(http, stream=True)
        assert reply.status_code == 200
        error = error_of(reply)
        assert (error["code"], error["type"]) == ("outbound_failed", "server_error")
        assert told(reply) == "Hello"
        assert "mangled" not in reply.text, "half an event is not passed on"


def test_a_stock_client_sees_that_a_stream_broke_off(client: openai.OpenAI, upstream: UpstreamServer) -> None:
    def play(request: Received) -> None:
        request.begin()
        request.event(HELLO[1])
        request.break_off()

    upstream.play = play
    with (
        client.chat.completions.create(model="strong/gpt-5", messages=HI, stream=True) as stream,
        pytest.raises(openai.APIError, match="broke off"),
    ):
        list(stream)


def test_an_upstreams_error_within_a_stream_is_passed_on(http: httpx.Client, upstream: UpstreamServer) -> None:
    def play(request: Received) -> None:
        request.begin()
        request.event(HELLO[1])
        request.event({"error": {"message": f"overloaded, {UPSTREAM_KEY}", "code": "overloaded"}})
        request.send(b"data: [DONE]\n\n")
        request.end()

    upstream.play = play
    reply = post(http, stream=True)
    assert error_of(reply)["code"] == "overloaded"
    assert UPSTREAM_KEY not in reply.text


def test_a_reply_that_breaks_off_is_an_error(http: httpx.Client, upstream: UpstreamServer) -> None:
    upstream.play = Received.break_off
    for stream in (False, True):
        reply = post(http, stream=stream)
        assert (reply.status_code, error_of(reply)["code"]) == (502, "outbound_failed")
    assert len(upstream.seen) == 2, "each may have been answered: none is sent again"

    def play(request: Received) -> None:
        request.begin("application/json")
        request.send(json.dumps(completion({"content": "Hello"})).encode()[:-5])
        request.break_off()

    upstream.play = play
    assert (reply := post(http)).status_code == 502
    assert error_of(reply)["code"] == "outbound_failed"


def test_a_huge_answer_is_given_up(serving: Serving, http_of: HttpOf, upstream: UpstreamServer) -> None:
    def play(request: Received) -> None:
        request.begin("text/event-stream" if request.body["stream"] else "application/json")
        while True:
            request.event(chunk({"content": "x" * 10_000}))

    upstream.play = play
    with serving(max_response_bytes=300_000) as url:
        reply = post(http_of(url), stream=True)
        assert error_of(reply)["code"] == "outbound_failed"
        assert len(reply.content) < 320_000
        assert post(http_of(url)).status_code == 502
        assert upstream.seen[0].left.wait(5)
        assert upstream.seen[1].left.wait(5)


def test_an_upstream_that_hangs_is_given_up(serving: Serving, http_of: HttpOf, upstream: UpstreamServer) -> None:
    """Before it begins, and in the middle."""

    def fall_silent(request: Received) -> None:
        request.begin("text/event-stream" if request.body["stream"] else "application/json")
        request.event(HELLO[1])
        request.wait_until_left()

    with serving(first_byte_seconds=0.5, idle_seconds=0.5, total_seconds=2) as url:
        http = http_of(url)
        for play, stream, status in (
            (Received.wait_until_left, True, 504),
            (Received.wait_until_left, False, 504),
            (fall_silent, True, 200),
            (fall_silent, False, 504),
        ):
            upstream.play = play
            reply = post(http, stream=stream)
            assert (reply.status_code, error_of(reply)["code"]) == (status, "outbound_timed_out")
            assert upstream.seen[-1].left.wait(5)
    assert len(upstream.seen) == 4


def test_a_stream_without_end_is_given_up(serving: Serving, http_of: HttpOf, upstream: UpstreamServer) -> None:
    def play(request: Received) -> None:
        request.begin()
        while True:
            request.send(b": still here\n\n")
            time.sleep(0.02)

    upstream.play = play
    with serving(total_seconds=0.5) as url:
        assert error_of(post(http_of(url), stream=True))["code"] == "outbound_timed_out"
        assert upstream.seen[0].left.wait(5)


def test_a_caller_may_wait_less(http: httpx.Client, upstream: UpstreamServer) -> None:
    upstream.play = lambda request: request.wait_until_left() and None
    reply = post(http, headers={"X-Memgen-Timeout": "0.3"})
    assert (reply.status_code, error_of(reply)["code"]) == (504, "outbound_timed_out")
    assert post(http, headers={"X-Memgen-Timeout": "soon"}).status_code == 400


def test_a_silent_upstream_is_bridged_by_comments(serving: Serving, http_of: HttpOf, upstream: UpstreamServer) -> None:
    """Before it begins, and in between: a proxy must not take the connection for dead."""

    def play(request: Received) -> None:
        time.sleep(0.5)
        request.begin()
        request.event(HELLO[1])
        request.send(b'data: {"id": "theirs", ')  # half an event: a comment must not come into it
        time.sleep(0.5)
        request.send(json.dumps(HELLO[3])[1:].encode() + b"\n\ndata: [DONE]\n\n")
        request.end()

    upstream.play = play
    with serving(alive_seconds=0.1) as url:
        reply = post(http_of(url), stream=True)
    parts = [part for part in reply.text.split("\n\n") if part != ": keep-alive"]
    assert [part[:6] for part in parts] == ["data: ", "data: ", "data: ", ""]
    assert (told(reply), parts[2]) == ("Hel", "data: [DONE]")
    assert reply.text.startswith(": keep-alive\n\n")
    assert reply.text.count(": keep-alive\n\n") >= 4


def test_an_error_after_the_stream_began_is_an_event(
    serving: Serving, http_of: HttpOf, upstream: UpstreamServer
) -> None:
    def play(request: Received) -> None:
        time.sleep(0.4)
        request.reply({"error": {"message": "no"}}, 429)

    upstream.play = play
    with serving(alive_seconds=0.1) as url:
        reply = post(http_of(url), stream=True)
    assert reply.status_code == 200
    assert error_of(reply)["type"] == "rate_limit_error"


def test_a_client_that_leaves_ends_the_upstreams_work(
    api_url: str, api_key: str, http: httpx.Client, upstream: UpstreamServer
) -> None:
    def play(request: Received) -> None:
        if number == 2:
            request.begin()
            request.event(HELLO[1])
        request.wait_until_left()

    upstream.play = play
    host, port = api_url.removeprefix("http://").split(":")
    for number, stream in enumerate((False, True, True)):
        connection = http_client.HTTPConnection(host, int(port), timeout=20)
        headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps({**BODY, "stream": stream}), headers)
        upstream.wait_for(number + 1)
        if number == 2:
            assert connection.getresponse().readline().startswith(b"data: ")
        connection.close()
        assert upstream.seen[number].left.wait(5)
    assert http.get("/v1/upstreams").json()["data"][0]["requests"] == 0


def test_a_request_that_was_not_taken_is_sent_again(
    serving: Serving, http_of: HttpOf, upstream: UpstreamServer
) -> None:
    def play(request: Received) -> None:
        if len(upstream.seen) < 3:
            request.reply({"error": {"message": "busy"}}, 429 if len(upstream.seen) == 1 else 503, Retry_After="0.05")
        else:
            say_hello(request)

    upstream.play = play
    with serving(retries=2) as url:
        assert post(http_of(url)).json()["choices"][0]["message"]["content"] == "Hello"
    assert len(upstream.seen) == 3
    assert len({json.dumps(each.body) for each in upstream.seen}) == 1


def test_other_refusals_are_not_sent_again(serving: Serving, http_of: HttpOf, upstream: UpstreamServer) -> None:
    waits = ((429, {}), (429, {"Retry_After": "60"}), (429, {"Retry_After": "soon"}), (503, {"Retry_After": "-1"}))
    with serving(retries=2) as url:
        http = http_of(url)
        for status, headers in (*waits, (429, {"Retry_After": "nan"}), (500, {"Retry_After": "0"})):
            upstream.play = partial(Received.reply, body={"error": {"message": "no"}}, status=status, **headers)
            assert post(http).status_code == status
    assert len(upstream.seen) == 6


def test_a_wait_that_the_caller_would_not_live_to_see_is_passed_on_at_once(
    serving: Serving, http_of: HttpOf, upstream: UpstreamServer
) -> None:
    upstream.play = lambda request: request.reply({"error": {"message": "busy"}}, 429, Retry_After="8")
    with serving(retries=2, first_byte_seconds=3) as url:
        for stream, headers in ((False, {"X-Memgen-Timeout": "3"}), (True, {})):
            reply = post(http_of(url), stream=stream, headers=headers)
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "8")
    assert len(upstream.seen) == 2


def test_a_request_is_sent_again_only_so_often(serving: Serving, http_of: HttpOf, upstream: UpstreamServer) -> None:
    upstream.play = lambda request: request.reply({"error": {"message": "no"}}, 429, Retry_After="0")
    with serving(retries=2) as url:
        assert post(http_of(url)).status_code == 429
    assert len(upstream.seen) == 3


def test_an_upstream_that_is_away_is_an_error(serving: Serving, http_of: HttpOf, upstream: UpstreamServer) -> None:
    upstream.url = "http://127.0.0.1:9/v1"
    with serving(retries=1) as url:
        reply = post(http_of(url))
    assert (reply.status_code, error_of(reply)["code"]) == (502, "outbound_failed")
    assert "127.0.0.1" not in reply.text, "where it is, is the operator's"


def test_a_full_upstream_refuses_and_no_other_request_waits(
    serving: Serving, http_of: HttpOf, upstream: UpstreamServer
) -> None:
    go = threading.Event()

    def play(request: Received) -> None:
        assert go.wait(20)
        say_hello(request)

    upstream.play = play
    with serving(max_concurrent=2) as url:
        http = http_of(url)
        replies: list[httpx.Response] = []
        asking = [
            threading.Thread(target=lambda stream=each: replies.append(post(http, stream=stream)))
            for each in (False, True)
        ]
        for thread in asking:
            thread.start()
        upstream.wait_for(2)
        refused = post(http)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        began = time.monotonic()
        assert http.get("/v1/models").status_code == 200
        assert time.monotonic() - began < 2
        go.set()
        for thread in asking:
            thread.join()
        assert [reply.status_code for reply in replies] == [200, 200]
        assert post(http).status_code == 200, "the places are free again"


def test_places_are_free_again_however_a_request_ends(
    serving: Serving, http_of: HttpOf, upstream: UpstreamServer
) -> None:
    def play(request: Received) -> None:
        number = len(upstream.seen)
        if number == 1:
            request.break_off()
        elif number == 2:
            request.begin()
            request.send(b"garbage\n\n")
            request.break_off()
        elif number in (3, 4):
            request.wait_until_left()
        else:
            say_hello(request)

    upstream.play = play
    with serving(max_concurrent=1, first_byte_seconds=0.3) as url:
        http = http_of(url)
        assert post(http).status_code == 502
        assert post(http, stream=True).status_code == 200
        assert post(http, stream=True).status_code == 504
        with pytest.raises(httpx.ReadTimeout):
            post(http, timeout=0.3)
        assert upstream.seen[3].left.wait(60)
        deadline = time.monotonic() + 60
        while (reply := post(http)).status_code == 429 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reply.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_an_upstream_quotes_goes_no_further(
    http: httpx.Client, upstream: UpstreamServer, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not to the client, and not to the log."""
    bad = {"error": {"message": f"Incorrect key {UPSTREAM_KEY}.", "code": UPSTREAM_KEY, "type": UPSTREAM_KEY}}
    upstream.play = lambda request: request.reply(bad, 401)
    reply = post(http, stream=stream)
    assert reply.status_code == 401
    assert UPSTREAM_KEY not in reply.text + str(reply.headers)

    def echo(request: Received) -> None:
        if stream:
            request.begin()
            request.event(chunk({"content": json.dumps(request.headers)}, finish="stop"))
            request.send(b"data: [DONE]\n\n")
            request.end()
        else:
            request.reply(completion({"content": json.dumps(request.headers)}))

    upstream.play = echo
    reply = post(http, stream=stream)
    assert "Authorization" in reply.text
    assert UPSTREAM_KEY not in reply.text

    upstream.play = lambda request: request.reply(
        f"data: {UPSTREAM_KEY}\n\n".encode(), Content_Type="text/event-stream"
    )
    assert UPSTREAM_KEY not in post(http, stream=stream).text
    logged = capfd.readouterr()
    assert UPSTREAM_KEY not in logged.out + logged.err
