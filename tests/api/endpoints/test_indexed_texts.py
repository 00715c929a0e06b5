"""What clients send that is looked for by an index: PostgreSQL's take 2.7 kB at most, whatever does not compress."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from registry.models import Base
from registry.settings import Settings
from tests.api.live_api import serve

LONG = secrets.token_hex(5000)
HI = [{"role": "user", "content": "hi"}]
LONGEST_USER = "".join(chr(0x20000 + secrets.randbelow(40_000)) for _ in range(512))
"""As many characters as are taken, of four bytes each."""


@pytest.fixture
def api(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[httpx.Client]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base)})
    headers = {"Authorization": f"Bearer {api_key}"}
    with serve(tiny, serve_model=True) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("chat/completions", {"messages": HI, "user": LONG}, "user"),
        ("completions", {"prompt": "hi", "user": LONG}, "user"),
        ("responses", {"input": "hi", "store": True, "user": LONG}, "user"),
        ("responses", {"input": "hi", "store": True, "metadata": {"user": LONG}}, "metadata"),
        ("responses", {"input": "hi", "store": True, "previous_response_id": LONG}, "previous_response_id"),
        ("messages", {"messages": HI, "max_tokens": 1, "metadata": {"user_id": LONG}}, "user_id"),
    ],
)
def test_who_asks_is_named_in_few_words(api: httpx.Client, path: str, body: dict[str, Any], named: str) -> None:
    """Also where a session of its own is named, so that the user is not the session."""
    refused = api.post(f"/v1/{path}", json={"model": "base", **body}, headers={"X-Session-Id": "s"})
    assert refused.status_code == 400, refused.text
    assert named in refused.text
    assert len(refused.text) < 2000


def test_the_longest_user_is_kept(api: httpx.Client) -> None:
    body = {"model": "base", "input": "hi", "store": True, "user": LONGEST_USER, "max_output_tokens": 1}
    reply = api.post("/v1/responses", json=body, headers={"X-Session-Id": "s"})
    assert reply.status_code == 200, reply.text
    assert reply.json()["store"] is True


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": HI, "max_tokens": 1, "user": LONGEST_USER}),
        ("completions", {"prompt": "hi", "max_tokens": 1, "user": LONGEST_USER}),
        ("responses", {"input": "hi", "max_output_tokens": 1, "metadata": {"session_id": LONGEST_USER}}),
        ("messages", {"messages": HI, "max_tokens": 1, "metadata": {"user_id": LONGEST_USER}}),
    ],
)
def test_the_longest_user_names_a_session(api: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Whose answers and runs are rewarded and found by it."""
    reply = api.post(f"/v1/{path}", json={"model": "base", **body})
    assert reply.status_code == 200, reply.text
    given = api.post("/v1/feedback", json={"session_id": LONGEST_USER, "reward": 1.0})
    assert (given.status_code, given.json()["session_id"]) == (201, LONGEST_USER), given.text
    for found in ("feedback", "trajectories", "runs"):
        assert api.get(f"/v1/{found}", params={"session_id": LONGEST_USER}).status_code == 200
    trajectory = {"messages": [*HI, {"role": "assistant", "content": "ho"}], "session_id": LONGEST_USER}
    api.post("/v1/tasks", json={"name": "t"})
    assert api.post("/v1/trajectories", json={"task": "t", **trajectory}).status_code in (200, 201)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/adapters", {"name": LONG}),
        ("POST", "/v1/tasks", {"name": LONG, "grader": {"kind": "exact"}}),
        ("POST", "/v1/schedules", {"name": LONG, "adapter": "bot", "task": "t", "new_trajectories": 5}),
        ("POST", "/v1/judges", {"name": LONG, "model": "base", "rubric": "r"}),
        ("POST", "/v1/webhooks", {"name": LONG, "url": "https://example.org/"}),
        ("POST", "/v1/trajectories", {"task": "t", "messages": HI, "session_id": LONG}),
        ("POST", "/v1/trajectories", {"task": "t", "messages": HI, "adapter_version": LONG}),
        ("POST", "/v1/trajectories", {"task": "t", "messages": HI, "reward": 1.0, "reward_source": LONG}),
        ("POST", "/v1/feedback", {"completion_id": LONG, "reward": 1.0}),
        ("POST", "/v1/feedback", {"session_id": LONG, "reward": 1.0}),
        ("POST", "/v1/feedback", {"session_id": "s", "reward": 1.0, "source": LONG}),
        ("POST", "/v1/feedback", {"session_id": "s", "reward": 1.0, "comment": LONG}),
    ],
)
def test_names_are_bounded(api: httpx.Client, method: str, path: str, body: dict[str, Any]) -> None:
    refused = api.request(method, path, json=body)
    assert refused.status_code in (400, 404, 422), refused.text
    assert len(refused.text) < 3000


@pytest.mark.parametrize("header", ["X-Session-Id", "Idempotency-Key"])
def test_headers_are_bounded(api: httpx.Client, header: str) -> None:
    path, body = "/v1/chat/completions", {"model": "base", "messages": HI}
    if header == "Idempotency-Key":
        path, body = "/v1/adapters", {"name": "bot"}
    assert api.post(path, json=body, headers={header: LONG}).status_code in (400, 422)


HASHES = {
    *("api_keys.key_hash", "datasets.content_hash", "judge_calls.prompt_hash", "run_turns.hash", "runs.tip"),
    *("sign_ins.token_hash", "suites.content_hash", "trajectories.beginning_hash", "trajectories.content_hash"),
}
OURS = {
    *("evaluations.base_model", "evaluations.base_revision", "idempotent_replies.endpoint", "jobs.state"),
    "jobs.kind",
    *("exposures.completion_id", "feedback.completion_id", "recorded_calls.completion_id", "recording_counts.outcome"),
    *("shadow_answers.completion_id", "stored_responses.id", "stored_responses.previous_id", "recorders.name"),
    "trajectory_rewards.completion_id",
}
NAMES = {
    *("adapters.name", "alias_moves.alias", "aliases.name", "judges.name", "projects.name", "schedules.name"),
    *("tasks.name", "version_tags.name", "webhooks.name", "feedback.source", "trajectories.reward_source"),
    "trajectory_rewards.source",
}
"""By `registry.names`."""
BOUNDED_ABOVE = {
    *("exposures.session_id", "feedback.session_id", "feedback.unit", "idempotent_replies.key", "runs.scope"),
    *("runs.session_id", "stored_responses.session_id", "stored_responses.user", "trajectories.session_id"),
    *("runs.user", "trajectories.adapter_version"),
}


def test_every_index_on_a_text_is_known() -> None:
    """Whoever adds one says here why its texts are short, and tests it above if clients send them."""
    found = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for index in (*table.indexes, *table.constraints)
        if not isinstance(index, sa.CheckConstraint)
        for column in getattr(index, "columns", ())
        if isinstance(column.type, sa.Text | sa.String)
    }
    assert found == HASHES | OURS | NAMES | BOUNDED_ABOVE
