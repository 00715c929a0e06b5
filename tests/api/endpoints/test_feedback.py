"""Feedback over HTTP: what it names, what is listed and searched, whose it is; and what becomes of a recorded run."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from memgen_client import JsonClient
from registry.database import transaction
from registry.keys import create_key
from registry.models import Project
from registry.settings import Settings
from registry.tasks import create_task
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]


def _auth(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def url(settings: Settings, services: Services, tiny_base: Path, api_key: str, project_id: uuid.UUID) -> Iterator[str]:
    with transaction(services.sessions) as session:
        create_task(session, project_id, "support", grader={"kind": "exact"}, holdout_share=0.5)
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with serve(tiny, serve_model=True) as found:
        yield found


@pytest.fixture
def http(url: str, api_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=_auth(api_key), timeout=30) as client:
        yield client


def _chat(http: httpx.Client, session_id: str, text: str = "hi", **headers: str) -> dict[str, Any]:
    body = {"model": "base", "messages": [{"role": "user", "content": text}], "max_tokens": 64, "store": True}
    sent = {"X-Memgen-Task": "support", "X-Session-Id": session_id, **headers}
    reply = http.post("/v1/chat/completions", json=body, headers=sent)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def _give(http: httpx.Client, **body: Any) -> dict[str, Any]:
    reply = http.post("/v1/feedback", json={"reward": 1, **body})
    assert reply.status_code == 201, reply.text
    found: dict[str, Any] = reply.json()
    return found


def _trajectories(http: httpx.Client, count: int, **wanted: Any) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while True:
        found: list[dict[str, Any]] = http.get("/v1/trajectories", params=wanted).json()["data"]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count}"
        time.sleep(0.05)


def test_feedback_becomes_the_reward_of_a_recorded_run(http: httpx.Client, watch: Watch) -> None:
    watch.say = "Hello there."
    answers = {name: _chat(http, name) for name in ("by-session", "by-run", "by-answer")}
    run = answers["by-run"]["memgen"]["recorded"]["run"]
    by_session = _give(http, session_id="by-session", reward=0.25, source="environment", comment="it took too long")
    by_run = _give(http, run_id=run, reward=0.75)
    assert (len(by_session["runs"]), by_run["runs"]) == (1, [run])
    assert _give(http, completion_id=answers["by-answer"]["id"], reward=0.5)["runs"] == []
    _chat(http, "by-answer", "something else", **{"X-Memgen-Run": "end"})
    found = {row["session_id"]: row for row in _trajectories(http, 2, rewarded=True)}
    assert {name: (row["reward"], row["reward_source"]) for name, row in found.items()} == {
        "by-session": (0.25, "environment"),
        "by-run": (0.75, "user"),
    }
    # The run of the answer goes on; what was said of it waits.
    last = _give(http, session_id="by-answer", reward=0.0, source="grader")
    assert set(last["runs"]) >= {answers["by-answer"]["memgen"]["recorded"]["run"]}
    rewarded = _trajectories(http, 2, session_id="by-answer")
    assert {row["reward_source"] for row in rewarded} == {"grader"}
    mine = next(row for row in rewarded if row["trajectory_id"] == answers["by-answer"]["memgen"]["recorded"]["run"])
    given = http.get(f"/v1/trajectories/{mine['id']}").json()["rewards"]
    assert [(each["source"], each["reward"], each["completion_id"]) for each in given] == [
        ("user", 0.5, answers["by-answer"]["id"]),
        ("grader", 0.0, None),
    ]
    rewards = http.get(f"/v1/trajectories/{found['by-session']['id']}").json()["rewards"]
    assert [(each["source"], each["comment"], each["feedback"]) for each in rewards] == [
        ("environment", "it took too long", by_session["id"])
    ]


NOT_ONE_TARGET: list[dict[str, Any]] = [
    {},
    {"completion_id": None},
    {"completion_id": "c", "session_id": "s"},
    {"run_id": str(uuid.uuid4()), "trajectory_id": str(uuid.uuid4())},
    {"run_id": "no uuid"},
    {"run_id": 7},
    {"session_id": ""},
    {"session_id": "\0"},
    {"session_id": "\ud800"},
    {"session_id": "x" * 513},
    {"session_id": ["s"]},
    {"trajectory_id": "\0"},
    {"session_id": "s", "reward": 2},
    {"session_id": "s", "reward": "1"},
    {"session_id": "s", "comment": "\0"},
    {"session_id": "s", "comment": "x" * 2001},
    {"session_id": "s", "source": "judge:strict"},
    {"session_id": "s", "colour": "red"},
]


def test_feedback_names_exactly_one_thing(plain_url: str, api_key: str) -> None:
    with httpx.Client(base_url=plain_url, headers=_auth(api_key), timeout=30) as http:
        for body in NOT_ONE_TARGET:
            sent = json.dumps({"reward": 1, **body})
            reply = http.post("/v1/feedback", content=sent, headers={"Content-Type": "application/json"})
            assert reply.status_code == 422, (body, reply.text)
        unknown = {"reward": 1, "trajectory_id": str(uuid.uuid4())}
        assert http.post("/v1/feedback", json=unknown).json()["type"] == "urn:memgen:problem:trajectory_not_found"
        assert http.get("/v1/feedback").json()["data"] == []


def test_comments_are_kept_and_searched(plain_url: str, api_key: str) -> None:
    with JsonClient(plain_url, api_key) as client:
        comments = [
            "The agent was rude to the customer.",
            "Polite, but the REFUND was wrong",
            "refund done; customer happy",
            "\u00dcberweisung \u2014 zu langsam \U0001f422",
            "",
        ]
        for number, comment in enumerate(comments):
            client.feedback.give(number / 4, session=f"s{number}", comment=comment, source="crm" if number else "user")

        def found(**wanted: Any) -> list[str]:
            return [str(row["session_id"]) for row in client.feedback.all(**wanted)]

        assert found() == ["s4", "s3", "s2", "s1", "s0"], "newest first"
        assert found(search="refund") == ["s2", "s1"]
        assert found(search="customer -rude") == ["s2"]
        assert found(search='"refund was"') == ["s1"]
        assert found(search="rude or happy") == ["s2", "s0"]
        assert found(search="\u00fcberweisung") == ["s3"]
        assert found(search="refund nobody") == []
        for odd in ("'; drop table feedback; --", "& | ! ( :*", '"', "\\", "a" * 500):
            assert found(search=odd) == []
        assert found(source="user") == ["s0"]
        assert found(session_id="s3") == ["s3"]
        assert found(min_reward=0.5, max_reward=0.75) == ["s3", "s2"]
        first = client.feedback.list(limit=2)
        rest = client.feedback.list(limit=3, cursor=first["next_cursor"])
        assert [row["session_id"] for row in first["data"] + rest["data"]] == ["s4", "s3", "s2", "s1", "s0"]
        assert rest["next_cursor"] is None


@pytest.fixture
def plain_url(settings: Settings) -> Iterator[str]:
    with serve(settings) as found:
        yield found


def test_scopes_and_projects(plain_url: str, services: Services, project_id: uuid.UUID, api_key: str) -> None:
    with transaction(services.sessions) as session:
        keys = {scope: create_key(session, project_id, scope, [scope])[1] for scope in ("read", "write", "promote")}
        elsewhere = Project(name="elsewhere")
        session.add(elsewhere)
        session.flush()
        keys["stranger"] = create_key(session, elsewhere.id, "stranger", ["admin"])[1]
    with httpx.Client(base_url=plain_url, headers=_auth(api_key)) as http:
        _give(http, session_id="s", comment="secret")
        for bad in ({"search": "x" * 501}, {"search": "\0"}, {"run_id": "x"}, {"min_reward": "nan"}, {"cursor": "x"}):
            assert http.get("/v1/feedback", params=bad).status_code == 422, bad

        def statuses(name: str) -> list[int]:
            auth, body = _auth(keys[name]), {"session_id": "t", "reward": 0}
            return [
                http.get("/v1/feedback", headers=auth).status_code,
                http.post("/v1/feedback", json=body, headers=auth).status_code,
            ]

        assert statuses("read") == [200, 403]
        assert statuses("promote") == [403, 403]
        assert statuses("write") == [403, 201]
        assert statuses("stranger") == [200, 201]
        listed = http.get("/v1/feedback", params={"search": "secret"}, headers=_auth(keys["stranger"])).json()["data"]
        assert listed == []
        assert http.get("/v1/feedback", params={"session_id": "t"}).json()["data"][0]["actor"] == "key write"


def test_trajectories_are_listed_by_their_rewards(plain_url: str, api_key: str) -> None:
    with JsonClient(plain_url, api_key) as client:
        client.tasks.create("t")
        sent = [
            {
                "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}],
                "trajectory_id": f"n{n}",
                **({"reward": n / 4, "reward_source": "user"} if n else {}),
            }
            for n in range(4)
        ]
        client.trajectories.upload(sent, task="t")

        def found(**wanted: Any) -> list[str]:
            return [str(row["trajectory_id"]) for row in client.trajectories.all(**wanted)]

        assert found(rewarded=False) == ["n0"]
        assert found(rewarded=True, max_reward=0.5) == ["n1", "n2"]
        first = next(iter(client.trajectories.all(max_reward=0.25)))
        given = client.feedback.give(1.0, trajectory=first["id"], source="environment")
        assert given["trajectories"] == [first["id"]]
        assert found(reward_source="environment") == ["n1"]
        assert found(min_reward=0.75) == ["n1", "n3"]
        assert [each["source"] for each in client.trajectories.get(first["id"])["rewards"]] == ["user", "environment"]
