"""Trajectories, uploads, deletions, tasks, recordings, schedules and keys in the dashboard."""

import gzip
import json
import re
import uuid

import pytest

from api.dashboard.conversation import turns_of
from api.dashboard.pages.trajectories import IMPORT_PATH
from api.dashboard.visits import CSRF_HEADER
from registry.adapters import get_adapter
from registry.database import transaction
from registry.loops.plan import LoopPlan
from registry.models import ApiKey, IdempotentReply, Trajectory
from registry.trajectories.words import index_words
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with, wrongs_of
from tests.registry.conftest import Rows, chats
from tests.registry.loops.looped import make_looped


@pytest.fixture
def task(rows: Rows) -> str:
    return rows.task(
        "a",
        [
            *chats(30, word="order", reward=1.0),
            *chats(5, word="parcel", reward=0.25, session_id="s1", adapter_version="bot@2"),
        ],
    )


def _ids(page: str) -> list[str]:
    return re.findall(r'href="/ui/trajectories/([0-9a-f-]{36})"', page)


def test_a_search_finds_what_was_asked_for(visitor: Visitor, rows: Rows, task: str) -> None:
    assert len(_ids(visitor.open("/trajectories"))) == 35
    with transaction(rows.services.sessions) as session:
        index_words(session, rows.project_id)
    for query, count in (
        ("task=a", 35),
        ("text=parcel", 5),
        ("text=order+3+is+here", 1),
        ("text=%22parcel+3%22+or+%22order+3%22", 2),
        ("text=parcel+-here", 0),
        ("text=parcel&high=0.1", 0),
        ("session=s1", 5),
        ("version=bot%402", 5),
        ("version=bot", 0),
        ("high=0.5", 5),
        ("low=0.5&high=1", 30),
        ("rewarded=no", 0),
        ("session=nobody", 0),
        ("session=s1&held_out=yes", None),
    ):
        found = len(_ids(visitor.open(f"/trajectories?{query}")))
        assert found == count if count is not None else found < 5, query
    sides = [len(_ids(visitor.open(f"/trajectories?held_out={side}"))) for side in ("yes", "no")]
    assert sum(sides) == 35
    assert all(sides)
    for wrong in (
        "low=much",
        "low=nan",
        "high=inf",
        f"session={'x' * 600}",
        f"text={'x' * 600}",
        "cursor=nonsense",
    ):
        assert "That did not work" in visitor.open(f"/trajectories?{wrong}", status=422), wrong


@pytest.mark.parametrize("query", ["task=a", "text=where+%22is+order%22"])
def test_pages_of_a_search_hold_each_trajectory_once_the_newest_first(visitor: Visitor, rows: Rows, query: str) -> None:
    rows.task("a", chats(120))
    with transaction(rows.services.sessions) as session:
        index_words(session, rows.project_id)
    found, path = [], f"/trajectories?{query}"
    while path:
        page = visitor.open(path)
        found += _ids(page)
        older = re.search(r'href="(\?[^"]+)">Older', page)
        path = "/trajectories" + older.group(1).replace("&amp;", "&") if older else ""
    with transaction(rows.services.sessions) as session:
        newest = session.query(Trajectory).order_by(Trajectory.seq.desc())
        assert found == [str(row.id) for row in newest]


def test_a_trajectory_reads_as_a_conversation(visitor: Visitor, rows: Rows) -> None:
    talk = {
        "messages": [
            {"role": "system", "content": "Be <brief>."},
            {"role": "user", "content": [{"type": "text", "text": "Where is it?"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "x" * 1000},
            {"role": "assistant", "content": "It is here."},
        ],
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}],
        "reward": 0.5,
        "metadata": {"user": "anna"},
    }
    rows.task("a", [talk])
    [found] = _ids(visitor.open("/trajectories"))
    page = visitor.open(f"/trajectories/{found}")
    for text in (
        "Be &lt;brief&gt;.",
        "Where is it?",
        "Calls find",
        "{&#34;id&#34;: 7}",
        "It is here.",
        "1 tool",
        "anna",
    ):
        assert text in page, text
    assert "<details><summary>Result</summary>" in page, "a long result is folded"


def test_a_conversation_of_thousands_of_turns_is_read_by_pages(visitor: Visitor, rows: Rows) -> None:
    turns = [{"role": role, "content": f"{role} {n}."} for n in range(500) for role in ("user", "assistant")]
    rows.task("a", [{"messages": turns}])
    [found] = _ids(visitor.open("/trajectories"))
    seen, path = [], f"/trajectories/{found}"
    while path:
        page = visitor.open(path)
        seen.append(re.findall(r">((?:user|assistant) \d+\.)<", page))
        later = re.search(r'href="(\?turn=\d+)">Later', page)
        path = f"/trajectories/{found}{later.group(1)}" if later else ""
    assert [len(each) for each in seen] == [200] * 5
    assert [text for each in seen for text in each] == [turn["content"] for turn in turns]
    assert "Turns 801 to 1000 of 1000." in page
    assert 'href="?turn=601">Earlier' in page
    for odd in ("0", "-1", "x", "1001", "9" * 40, "%C2%B2"):
        assert "Turns 1 to 200 of 1000." in visitor.open(f"/trajectories/{found}?turn={odd}")


@pytest.mark.parametrize("content", [None, "", [], [{"type": "image_url", "image_url": {"url": "x"}}], {"odd": 1}, 7])
def test_no_message_is_too_odd_to_be_shown(content: object) -> None:
    [turn] = turns_of([{"role": "assistant", "content": content, "tool_calls": [None, {"function": {"name": 1}}]}])
    assert isinstance(turn.text, str)
    assert len(turn.calls) == 2


def test_a_file_is_uploaded_and_each_refused_line_is_told(visitor: Visitor, rows: Rows, task: str) -> None:
    page = visitor.open("/trajectories")
    csrf = re.search(r'data-csrf="([0-9a-f]+)"', page).group(1)
    lines = [json.dumps(each) for each in chats(3, word="bike")]
    body = "\n".join([lines[0], "{broken", *lines]).encode()
    for sent in (body, gzip.compress(body)):
        answer = visitor.http.post(f"{IMPORT_PATH}?task=a&format=chat", content=sent, headers={CSRF_HEADER: csrf})
        assert answer.status_code == 200
        assert "1 refused" in answer.text
        assert "<td>2</td>" in answer.text
    assert "3 were there already" in answer.text or "4 were there already" in answer.text
    for headers in ({}, {CSRF_HEADER: "0" * 64}, {CSRF_HEADER: csrf, "Sec-Fetch-Site": "cross-site"}):
        assert visitor.http.post(IMPORT_PATH, content=body, headers=headers).status_code == 403
    for query in ("task=nobody", "format=nothing"):
        answer = visitor.http.post(f"{IMPORT_PATH}?{query}", content=body, headers={CSRF_HEADER: csrf})
        assert answer.status_code in (404, 422)
        assert 'class="problem"' in answer.text
    for sent_as, words in (
        ({"Content-Encoding": "br"}, "is not known"),
        ({"Content-Type": "multipart/x"}, "a form was"),
    ):
        answer = visitor.http.post(IMPORT_PATH, content=body, headers={CSRF_HEADER: csrf, **sent_as})
        assert answer.status_code == 415, answer.text
        assert words in answer.text


def test_a_deletion_is_shown_before_it_is_done(visitor: Visitor, services: Services, rows: Rows, task: str) -> None:
    rows.version("a")
    found = _ids(visitor.open("/trajectories?held_out=no"))[0]
    page = visitor.open(f"/trajectories/{found}/deletion?policy=withdraw")
    assert "Nothing is deleted yet" in page
    assert "are withdrawn" in page
    assert found in _ids(visitor.open("/trajectories"))
    done = visitor.send(page, "/ui/deletions", reason="asked by anna")
    assert "deleted for good" in done.text
    assert found not in _ids(visitor.open("/trajectories"))
    assert "asked by anna" in visitor.open("/deletions")
    again = visitor.http.post("/ui/deletions", data=forms_of(page)["/ui/deletions"])
    assert again.status_code in (404, 409)


def test_keys_are_made_shown_once_and_revoked(visitor: Visitor) -> None:
    page = visitor.open("/keys")
    made = visitor.send(page, "/ui/keys", name="night <b>", **{"scope.read": "yes"})
    [key] = re.findall(r"mg_[\w-]{43}", made.text)
    assert "night &lt;b&gt;" in made.text
    assert key not in visitor.open("/keys")
    [action] = [path for path in forms_of(made.text) if path.endswith("/revoke")][-1:]
    assert "is revoked" in visitor.send(made.text, action).text
    refused = visitor.send(page, "/ui/keys", name="x", **{"scope.read": ""})
    assert refused.status_code == 409, "a form of which a key was made makes no other"
    refused = visitor.send(visitor.open("/keys"), "/ui/keys", name="x", **{"scope.read": ""})
    assert refused.status_code == 422
    assert "expected one or more of" in wrongs_of(refused.text)["new-scopes"]
    assert forms_of(refused.text)["/ui/keys"]["name"] == "x"


def test_a_form_that_is_sent_twice_makes_one_key(visitor: Visitor, services: Services) -> None:
    page = visitor.open("/keys")
    first = visitor.send(page, "/ui/keys", name="night")
    again = visitor.send(page, "/ui/keys", name="night")
    [key] = re.findall(r"mg_[\w-]{43}", first.text)
    assert key not in again.text
    assert "the key night was made, and shown, the first time" in again.text
    with transaction(services.sessions) as session:
        assert session.query(ApiKey).filter_by(name="night").count() == 1
        assert key not in str([row.reply for row in session.query(IdempotentReply)])


def test_what_a_key_may_not_do_is_not_shown(
    stranger: Visitor, services: Services, project_id: uuid.UUID, rows: Rows, task: str
) -> None:
    _, key = key_with(services, project_id, "read")
    stranger.sign_in(key)
    page = stranger.open("/trajectories")
    assert 'href="/ui/keys"' not in page
    assert 'id="upload"' not in page
    found = _ids(page)[0]
    assert "See what a deletion takes" not in stranger.open(f"/trajectories/{found}")
    for path in ("/keys", "/deletions", f"/trajectories/{found}/deletion"):
        assert "lacks the scope" in stranger.open(path, status=403)


def test_schedules_tasks_and_recordings(visitor: Visitor, rows: Rows) -> None:
    make_looped(rows, LoopPlan(cron="0 3 * * *", after=200))
    page = visitor.open("/schedules")
    [name] = set(re.findall(r'href="/ui/schedules/([^"]+)"', page))
    page = visitor.open(f"/schedules/{name}")
    paused = visitor.send(page, f"/ui/schedules/{name}/pause")
    assert f"{name} is paused." in paused.text
    assert f"{name} goes on." in visitor.send(paused.text, f"/ui/schedules/{name}/resume").text
    assert "likelihood" in visitor.open("/tasks") or "exact" in visitor.open("/tasks")
    page = visitor.open("/recordings")
    changed = visitor.send(page, "/ui/recordings", mode="all", share="0.5", task="a")
    assert "all is recorded from now on" in changed.text
    assert "50%" in changed.text
    refused = visitor.send(page, "/ui/recordings", mode="all", share="2")
    assert refused.status_code == 422
    with transaction(rows.services.sessions) as session:
        assert get_adapter(session, rows.project_id, "bot").gate_policy == "canary"
