"""Answers of upstreams have exposures and take feedback; nobody takes them for the base's."""

import uuid

import httpx
import openai
from sqlalchemy import select

from registry.database import transaction
from registry.models import Exposure
from registry.wiring import Services
from tests.api.gateway.upstream_server import Received, UpstreamServer, completion

BODY = {"model": "strong/gpt-5", "messages": [{"role": "user", "content": "hi"}]}


def test_feedback_names_the_upstream(http: httpx.Client, client: openai.OpenAI, services: Services) -> None:
    whole = http.post("/v1/chat/completions", json=BODY, headers={"X-Session-Id": "s1"}).json()["id"]
    with client.chat.completions.create(stream=True, **BODY) as stream:
        streamed = next(iter(stream)).id
        # While it is still being sent.
        reply = http.post("/v1/feedback", json={"completion_id": streamed, "reward": 0.5})
        assert reply.status_code == 201
    for answer, session_id in ((whole, "s1"), (streamed, None)):
        reply = http.post("/v1/feedback", json={"completion_id": answer, "reward": 1, "source": "grader"})
        assert (reply.status_code, reply.json()["model"]) == (201, "strong/gpt-5")
        assert reply.json()["session_id"] == session_id
    with transaction(services.sessions) as session:
        rows = list(session.scalars(select(Exposure)))
        assert {(row.completion_id, row.upstream, row.version_id) for row in rows} == {
            (whole, "strong/gpt-5", None),
            (streamed, "strong/gpt-5", None),
        }


def test_the_upstreams_own_id_names_nothing(http: httpx.Client) -> None:
    http.post("/v1/chat/completions", json=BODY)
    assert http.post("/v1/feedback", json={"completion_id": "chatcmpl-theirs", "reward": 1}).status_code == 404


def test_what_an_upstream_refuses_has_no_exposure(
    http: httpx.Client, upstream: UpstreamServer, services: Services
) -> None:
    upstream.play = lambda request: request.reply({"error": {"message": "no"}}, 429)
    http.post("/v1/chat/completions", json=BODY)
    with transaction(services.sessions) as session:
        assert list(session.scalars(select(Exposure))) == []


def test_an_id_is_never_anothers(http: httpx.Client, upstream: UpstreamServer, services: Services) -> None:
    """An upstream that repeats its ids, or takes one of ours, changes nothing."""
    first = http.post("/v1/chat/completions", json=BODY).json()["id"]

    def play(request: Received) -> None:
        request.reply(completion({"content": "x"}, id=first))

    upstream.play = play
    second = http.post("/v1/chat/completions", json=BODY).json()["id"]
    assert first != second
    with transaction(services.sessions) as session:
        assert set(session.scalars(select(Exposure.completion_id))) == {first, second}
    assert uuid.UUID(second.removeprefix("chatcmpl-"))
