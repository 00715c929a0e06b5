import gzip
import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from api.app import create_app
from api.endpoints.tokens import count_tokens
from api.http.pagination import decode_cursor, encode_cursor
from memgen.text.probing import probe
from registry.database import transaction
from registry.errors import InvalidCursor
from registry.models import Trajectory
from registry.settings import Settings
from registry.trajectories.formats.formats import FORMATS, format_names
from registry.trajectories.words import index_words
from registry.wiring import Services
from tests.fixtures_model import CHATML, save_tiny_tokenizer
from tests.trajectory_samples import BROKEN, PAIRS, chat, line, tiny_tokenizer, tool_chat


@contextmanager
def open_client(settings: Settings, api_key: str, base: Path) -> Iterator[TestClient]:
    """An API on this base, with a task `t`; batches of 7 so that files span several."""
    settings = settings.model_copy(update={"base_model": str(base), "import_batch_lines": 7})
    app = create_app(settings, serve_model=False)
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as opened:
        made = opened.post("/v1/tasks", json={"name": "t", "grader": {"kind": "exact"}})
        assert made.status_code == 201, made.text
        yield opened


@pytest.fixture
def client(settings: Settings, api_key: str, tiny_base: Path) -> Iterator[TestClient]:
    with open_client(settings, api_key, tiny_base) as opened:
        yield opened


def jsonl(*lines: bytes) -> bytes:
    return b"\n".join(lines) + b"\n"


def good(count: int, start: int = 0) -> list[bytes]:
    return [line(chat(f"question {n}", trajectory_id=f"id-{n}")) for n in range(start, start + count)]


def send(client: TestClient, data: bytes, **params: Any) -> dict[str, Any]:
    reply = client.post("/v1/trajectories/import", content=data, params={"task": "t", **params})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def ids_of(services: Services) -> list[str | None]:
    with transaction(services.sessions) as session:
        return list(session.scalars(select(Trajectory.trajectory_id).order_by(Trajectory.seq)))


def outcome(report: dict[str, Any]) -> tuple[int, int, int]:
    return report["accepted"], report["duplicate"], report["refused"]


# Bulk import


def test_a_format_that_is_added_is_read_both_ways_and_an_unknown_one_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "pairs", PAIRS)
    pair, other = {"question": "2+2?", "answer": "4"}, {"question": "3+3?", "answer": "6"}
    params = {"task": "t", "format": "pairs"}
    assert outcome(client.post("/v1/trajectories", json=pair, params=params).json()) == (1, 0, 0)
    assert outcome(client.post("/v1/trajectories", json=[pair, chat()], params=params).json()) == (0, 1, 1)
    lines = [json.dumps(each).encode() for each in (pair, other, chat())]
    report = send(client, jsonl(*lines), format="pairs")
    assert (outcome(report), report["refused_by_code"]) == ((1, 1, 1), {"invalid_pair": 1})
    stored = client.get("/v1/trajectories", params={"include_messages": True}).json()["data"]
    assert [[each["content"] for each in row["messages"]] for row in stored] == [["2+2?", "4"], ["3+3?", "6"]]
    assert client.post("/v1/trajectories", json=pair, params={"task": "t"}).status_code == 422, "chat is the default"
    for path in ("/v1/trajectories", "/v1/trajectories/import"):
        refused = client.post(path, json=chat("new"), params={"task": "t", "format": "csv"})
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:memgen:problem:invalid")
        assert "'csv'; expected one of: atif, chat, " in refused.json()["detail"]
    assert len(client.get("/v1/trajectories").json()["data"]) == 2


def test_the_schema_lists_the_formats(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/trajectories", "/v1/trajectories/import"):
        [shown] = [each for each in paths[path]["post"]["parameters"] if each["name"] == "format"]
        assert (shown["required"], shown["schema"]["enum"], shown["schema"]["default"]) == (
            False,
            format_names(),
            "chat",
        )


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_broken_kind_is_reported_by_line_beside_good_ones(
    client: TestClient, services: Services, packed: bool
) -> None:
    lines: list[bytes] = []
    expected: list[tuple[int, str]] = []
    for (_, broken, code), fine in zip(BROKEN, good(len(BROKEN)), strict=True):
        # A line break inside the UTF-16 sample would make it two lines.
        lines += [broken.replace(b"\n", b" "), fine, b"  "]
        expected.append((len(lines) - 2, code))
    too_long = b'{"messages": "' + b"x" * 4_000_000 + b'"}'
    data = jsonl(*lines, too_long, line(chat("word " * 1100)), good(1)[0])
    expected += [(len(lines) + 1, "line_too_long"), (len(lines) + 2, "too_long")]

    report = send(client, gzip.compress(data) if packed else data)

    assert [(found["line"], found["code"]) for found in report["lines"]] == expected
    assert all(found["status"] == "refused" and found["reason"] and not found["id"] for found in report["lines"])
    assert outcome(report) == (len(BROKEN), 1, len(expected))
    assert sum(report["refused_by_code"].values()) == report["refused"]
    assert (report["complete"], report["stopped"], report["lines_read"]) == (True, None, len(lines) + 3)
    assert ids_of(services) == [f"id-{n}" for n in range(len(BROKEN))]


def test_sending_a_file_again_is_harmless(client: TestClient, services: Services) -> None:
    data = jsonl(*good(20))
    first, again = send(client, data), send(client, data)
    assert outcome(first) == (20, 0, 0)
    assert 0 < first["held_out"] < 20
    assert outcome(again) == (0, 20, 0)
    assert again["held_out"] == 0
    other_way = [json.dumps(dict(reversed(json.loads(text).items())), indent=None).encode() for text in good(20)]
    assert outcome(send(client, jsonl(*reversed(other_way)))) == (0, 20, 0)
    assert len(ids_of(services)) == 20


def test_the_same_file_twice_at_once_is_stored_once(client: TestClient, services: Services) -> None:
    """Two whole files at once, one of them backwards: the order in which deadlocks would happen."""
    lines = good(150)
    files = [jsonl(*lines), jsonl(*reversed(lines)), jsonl(*lines)]
    start = threading.Barrier(len(files))

    def import_one(data: bytes) -> dict[str, Any]:
        start.wait()
        return send(client, data)

    with ThreadPoolExecutor(len(files)) as pool:
        reports = list(pool.map(import_one, files))
    assert all(report["complete"] and not report["refused"] for report in reports)
    assert [report["accepted"] + report["duplicate"] for report in reports] == [150] * 3
    assert sum(report["accepted"] for report in reports) == 150
    assert sorted(map(str, ids_of(services))) == sorted(f"id-{n}" for n in range(150))


def test_a_file_cut_in_the_middle_and_sent_again_loses_and_doubles_nothing(
    client: TestClient, services: Services
) -> None:
    padding = [line(chat(f"q {n}", metadata={"noise": uuid.uuid4().hex}, trajectory_id=f"id-{n}")) for n in range(100)]
    packed = gzip.compress(jsonl(*padding))
    cut = send(client, packed[: len(packed) // 2])
    assert cut["complete"] is False
    assert "cut short" in cut["stopped"]
    assert 0 < cut["accepted"] == cut["lines_read"] < 100
    assert ids_of(services) == [f"id-{n}" for n in range(cut["accepted"])]
    whole = send(client, packed)
    assert outcome(whole) == (100 - cut["accepted"], cut["accepted"], 0)
    assert ids_of(services) == [f"id-{n}" for n in range(100)]


def test_a_connection_that_breaks_keeps_whole_batches(client: TestClient, services: Services) -> None:
    data = jsonl(*good(10))
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": data, "more_body": True}, {"type": "http.disconnect"}]
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/trajectories/import",
        "query_string": b"task=t",
        "headers": [(b"authorization", client.headers["Authorization"].encode())],
    }

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def reply(message: object) -> None:
        """The client is gone."""

    assert client.portal is not None
    client.portal.call(client.app, scope, receive, reply)
    assert ids_of(services)[:7] == [f"id-{n}" for n in range(7)]
    stored = len(ids_of(services))
    assert outcome(send(client, data)) == (10 - stored, stored, 0)
    assert ids_of(services) == [f"id-{n}" for n in range(10)]


@pytest.mark.parametrize(
    ("headers", "params", "status"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, {}, 415),
        ({"Content-Encoding": "br"}, {}, 415),
        ({}, {"task": "nowhere"}, 404),
        ({}, {"task": "a\0b"}, 422),
        ({"Authorization": "Bearer nobody"}, {}, 401),
        ({"Content-Encoding": "gzip"}, {}, 200),
        ({"Content-Type": "application/x-www-form-urlencoded"}, {}, 200),
    ],
)
def test_requests_that_cannot_be_an_import_are_refused_whole(
    client: TestClient, headers: dict[str, str], params: dict[str, str], status: int
) -> None:
    reply = client.post(
        "/v1/trajectories/import", content=jsonl(*good(1)), headers=headers, params={"task": "t", **params}
    )
    assert reply.status_code == status, reply.text


def test_nothing_sent_is_a_complete_import_of_nothing(client: TestClient) -> None:
    assert outcome(send(client, b"")) == (0, 0, 0)


# Single trajectories and small lists


def test_one_trajectory_is_stored_and_read_back(client: TestClient) -> None:
    sent = tool_chat(task="t", reward=1, reward_source="grader", metadata={"a": [1, None]})
    report = client.post("/v1/trajectories", json=sent).json()
    assert outcome(report) == (1, 0, 0)
    [found] = report["lines"]
    row = client.get(f"/v1/trajectories/{found['id']}").json()
    assert {key: row[key] for key in sent} == sent
    assert row["tokens"] > 50
    again = client.post("/v1/trajectories", json=sent).json()
    assert (outcome(again), again["lines"][0]["id"]) == ((0, 1, 0), found["id"])


def test_a_single_refused_one_is_a_problem_with_its_code(client: TestClient) -> None:
    for name, data, code in BROKEN:
        if data.startswith(b"[1"):
            continue  # here a list is one of trajectories
        reply = client.post("/v1/trajectories?task=t", content=data)
        assert (reply.status_code, reply.json()["type"]) == (422, f"urn:memgen:problem:{code}"), name
        assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("wrapped", [False, True])
def test_several_are_reported_one_by_one(client: TestClient, wrapped: bool) -> None:
    items = [chat("a"), {"messages": []}, chat("a"), 5, chat("b", task="nowhere"), *(chat(str(n)) for n in range(10))]
    body = {"trajectories": items} if wrapped else items
    report = client.post("/v1/trajectories?task=t", json=body).json()
    assert outcome(report) == (11, 1, 3)
    assert [found["line"] for found in report["lines"]] == list(range(1, 16))
    assert [found["code"] for found in report["lines"][:5]] == [
        None,
        "messages_empty",
        None,
        "not_an_object",
        "task_unknown",
    ]
    assert report["lines"][2]["id"] == report["lines"][0]["id"]


def test_bodies_beyond_the_bounds_are_refused(client: TestClient) -> None:
    assert client.post("/v1/trajectories?task=t", json=[1] * 1001).status_code == 422
    assert client.post("/v1/trajectories?task=t", json={"trajectories": 5}).status_code == 422
    assert client.post("/v1/trajectories?task=t", content=b" " * 4_000_001).status_code == 413
    assert client.post("/v1/trajectories", json=chat()).json()["type"].endswith(":task_missing")


# Reading


def test_pages_cover_everything_once(client: TestClient) -> None:
    send(client, jsonl(*good(25)))
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get("/v1/trajectories", params={"limit": 10, **({"cursor": cursor} if cursor else {})}).json()
        seen += [row["trajectory_id"] for row in page["data"]]
        assert "messages" not in page["data"][0]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"id-{n}" for n in range(25)]
    held = client.get("/v1/trajectories", params={"held_out": True, "task": "t", "include_messages": True}).json()[
        "data"
    ]
    assert held
    assert all(row["held_out"] and row["messages"] for row in held)
    assert client.get("/v1/tasks/t").json()["held_out"] == len(held)
    assert client.get("/v1/trajectories", params={"session_id": "none"}).json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/trajectories?cursor=AAAA", 422),
        ("/v1/trajectories?cursor=%C3%A4", 422),
        ("/v1/trajectories?limit=0", 422),
        ("/v1/trajectories?session_id=a%00b", 422),
        ("/v1/trajectories?task=nowhere", 404),
        ("/v1/trajectories/7", 422),
        (f"/v1/trajectories/{uuid.UUID(int=0)}", 404),
        ("/v1/tasks/a%00b", 404),
    ],
)
def test_bad_reads_are_problems(client: TestClient, path: str, status: int) -> None:
    reply = client.get(path)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"


def test_cursors_come_back_and_tampering_shows() -> None:
    for seq in (1, 7, 2**62):
        assert decode_cursor(encode_cursor(seq)) == seq
    cursor = encode_cursor(7)
    for changed in (cursor[:-1], cursor + "A", cursor.swapcase(), "", "B" + cursor[1:]):
        with pytest.raises(InvalidCursor):
            decode_cursor(changed)


# Tasks


def test_tasks_are_created_once_and_listed(client: TestClient) -> None:
    spec = {"name": "u", "grader": {"kind": "numeric", "tolerance": 0.1}, "holdout_share": 0.3, "description": "d"}
    made = client.post("/v1/tasks", json=spec)
    assert (made.status_code, client.post("/v1/tasks", json=spec).status_code) == (201, 200)
    assert {key: made.json()[key] for key in spec} == spec
    assert client.post("/v1/tasks", json={**spec, "holdout_share": 0.4}).status_code == 409
    assert [task["name"] for task in client.get("/v1/tasks").json()["data"]] == ["t", "u"]
    assert client.get("/v1/tasks/t").json()["holdout_share"] == 0.2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "No"},
        {"name": 5},
        {"grader": {"kind": "magic"}},
        {"grader": {"kind": ["exact"]}},
        {"grader": {"kind": "exact", "colour": 1}},
        {"grader": {"kind": "likelihood", "colour": 1}},
        {"holdout_share": 1},
        {"holdout_share": "0.1"},
        {"description": "a\0b"},
        {"colour": "red"},
    ],
)
def test_bad_tasks_are_refused(client: TestClient, change: dict[str, Any]) -> None:
    reply = client.post("/v1/tasks", json={"name": "n", "grader": {"kind": "exact"}, **change})
    assert reply.status_code == 422, reply.text


# Tokens


def test_tokens_are_those_of_the_longest_supervised_turn() -> None:
    profile = probe(tiny_tokenizer())
    messages = [*chat("one two three", "yes no")["messages"], {"role": "user", "content": "more"}]
    # "<|im_start|>user one two three <|im_end|> <|im_start|>assistant" and "yes no <|im_end|>"
    assert count_tokens(profile, messages, None) == 6 + 3
    later = [*messages, {"role": "assistant", "content": "a b c d"}]
    assert count_tokens(profile, later, None) == 6 + 3 + 4 + 5
    assert count_tokens(profile, [*later[:3], {**later[3], "weight": 0}], None) == 6 + 3


def test_a_template_that_refuses_concerns_its_line_only(
    settings: Settings, api_key: str, tiny_base: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    refusal = "{% if messages[0].content == 'odd' %}{{ raise_exception('no odd ones') }}{% endif %}"
    save_tiny_tokenizer(base, refusal + CHATML)
    with open_client(settings, api_key, base) as client:
        report = send(client, jsonl(line(chat("odd")), line(chat("even")), line(chat("word " * 220))))
    assert [found["code"] for found in report["lines"]] == ["template_refused", "too_long"]
    assert "no odd ones" in report["lines"][0]["reason"]
    assert report["accepted"] == 1


def test_rows_in_the_database_match_the_report(client: TestClient, services: Services) -> None:
    report = send(client, jsonl(*good(30)))
    with transaction(services.sessions) as session:
        held = session.scalar(select(func.count()).where(Trajectory.held_out))
    assert held == report["held_out"]


def test_an_import_of_conversations_that_open_alike_warns(client: TestClient) -> None:
    def talk(n: int) -> dict[str, Any]:
        opening = [*chat("Begin.", "What can I do?")["messages"]]
        return {"messages": [*opening, *chat(f"Where is order {n}?", f"{n} is here.")["messages"]]}

    assert send(client, jsonl(*good(30)))["warnings"] == []
    made = client.post("/v1/tasks", json={"name": "alike", "grader": {"kind": "exact"}})
    assert made.json()["shared_turns"] == 0
    for report in (
        send(client, jsonl(*(line(talk(n)) for n in range(40))), task="alike"),
        client.post("/v1/trajectories", json=[talk(n) for n in range(40, 80)], params={"task": "alike"}).json(),
    ):
        [warning] = report["warnings"]
        assert "trajectories of task 'alike' begin alike" in warning
    spec = {"name": "shared", "grader": {"kind": "exact"}, "shared_turns": 1}
    assert client.post("/v1/tasks", json=spec).json()["shared_turns"] == 1
    report = send(client, jsonl(*(line(talk(n)) for n in range(40))), task="shared")
    assert report["warnings"] == []
    assert 0 < report["held_out"] < 20
    for wrong in (-1, 1001, "1", None):
        assert client.post("/v1/tasks", json={"name": "wrong", "shared_turns": wrong}).status_code == 422


def test_lines_that_will_not_be_judged_on_or_learned_from_are_warned_of(client: TestClient) -> None:
    """The tiny base reads 1,024 tokens, one a byte; a memory weaves 36 of them by default."""

    def called(n: int) -> dict[str, Any]:
        return {"messages": tool_chat()["messages"][:3], "tools": tool_chat()["tools"], "metadata": {"n": n}}

    def varied(n: int, length: int) -> bytes:
        return line(chat(f"{n} {'x' * length}", "y"))

    report = send(client, jsonl(*(varied(n, 970) for n in range(40)), *good(40)))
    assert (report["accepted"], report["refused"], report["lines"]) == (80, 0, [])
    long = {found["line"]: found["code"] for found in report["warned"]}
    assert set(long) == set(range(1, 41))
    assert report["warned_by_code"] == {
        "no_room_for_memory": list(long.values()).count("no_room_for_memory"),
        "too_long_to_learn": list(long.values()).count("too_long_to_learn"),
    }
    assert sum(report["warned_by_code"].values()) == 40
    assert all(0 < count < 40 for count in report["warned_by_code"].values())
    assert len(report["warnings"]) == 2
    first = next(found["line"] for found in report["warned"] if found["code"] == "too_long_to_learn")
    assert any(f"lines, as line {first}: its longest turn has" in warning for warning in report["warnings"])
    again = send(client, jsonl(*(varied(n, 970) for n in range(40))))
    assert (again["duplicate"], again["warned"], again["warnings"]) == (40, [], [])

    calls = client.post(
        "/v1/trajectories",
        json=[
            {**called(n), "messages": [{"role": "user", "content": f"order {n}"}, *called(n)["messages"][2:]]}
            for n in range(40)
        ],
        params={"task": "t"},
    )
    report = calls.json()
    assert report["warned_by_code"] == {"not_judged": report["held_out"]}
    assert report["held_out"] > 0
    assert "grader 'exact' judges text, and the expert's turn calls lookup" in report["warned"][0]["reason"]
    assert client.post("/v1/tasks", json={"name": "c", "grader": {"kind": "function_call"}}).status_code == 201
    for item in range(20):
        sent = client.post(
            "/v1/trajectories",
            json={
                **called(item),
                "messages": [{"role": "user", "content": f"order {item}"}, *called(item)["messages"][2:]],
            },
            params={"task": "c"},
        )
        assert sent.json()["warned"] == []


def test_arguments_that_are_just_deep_enough_to_be_stored_have_a_side(client: TestClient) -> None:
    """The hash of a beginning holds them as text, and so no deeper than they are."""
    assert (
        client.post("/v1/tasks", json={"name": "deep", "grader": {"kind": "exact"}, "shared_turns": 1}).status_code
        == 201
    )
    arguments = json.loads("[" * 96 + "]" * 96)
    call = {"id": "c", "type": "function", "function": {"name": "go", "arguments": json.dumps({"to": arguments})}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "there"},
        {"role": "assistant", "content": "b"},
    ]
    report = send(client, jsonl(*good(2), line({"messages": messages})), task="deep")
    assert outcome(report) == (3, 0, 0)


def test_a_listing_is_searched_by_words_and_may_begin_with_the_newest(
    client: TestClient, services: Services, project_id: uuid.UUID
) -> None:
    send(client, jsonl(*good(3)))

    def ids(**params: Any) -> list[str]:
        reply = client.get("/v1/trajectories", params=params)
        assert reply.status_code == 200, reply.text
        return [row["trajectory_id"] for row in reply.json()["data"]]

    assert ids(text="question") == [], "it is indexed behind the import"
    with transaction(services.sessions) as session:
        index_words(session, project_id)
    assert ids(text="question") == ["id-0", "id-1", "id-2"]
    assert ids(text="question -1", newest=True) == ["id-2", "id-0"]
    assert ids(text='"question 1" or "question 2"', task="t", include_messages=True) == ["id-1", "id-2"]
    assert ids(newest=True) == ["id-2", "id-1", "id-0"]
    first = client.get("/v1/trajectories", params={"newest": True, "limit": 2}).json()
    assert ids(newest=True, cursor=first["next_cursor"]) == ["id-0"]
    for bad in ({"text": "x" * 501}, {"text": "\0"}, {"newest": "often"}):
        assert client.get("/v1/trajectories", params=bad).status_code == 422, bad
