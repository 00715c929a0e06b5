"""Searching trajectories by their words: in any language, of every kind of message, whatever is sent."""

import itertools
import json
import random
import threading
import time
import unicodedata
import uuid
from collections.abc import Iterable
from typing import Any

import pytest
import regex  # type: ignore[import-untyped]  # ships no type information
import sqlalchemy as sa

from registry.database import transaction
from registry.models import Project, Trajectory, TrajectoryWords
from registry.trajectories import records, words
from registry.trajectories.records import TrajectoryFilter, list_trajectories
from registry.trajectories.words import MOST_BYTES, index_words, projects_to_index, words_of
from tests.registry.conftest import Rows
from tests.registry.deleting import SECRET, delete, with_secrets
from tests.registry.stored_versions import whole_database


def said(text: Any, **envelope: Any) -> dict[str, Any]:
    """A trajectory by its question, which is its sender's id for it too."""
    answer = {"role": "assistant", "content": "done"}
    return {"messages": [{"role": "user", "content": text}, answer], "trajectory_id": str(text)[:40], **envelope}


def index(rows: Rows) -> int:
    """Index all there is. Returns the number of trajectories."""
    count = 0
    while True:
        with transaction(rows.services.sessions) as session:
            found = index_words(session, rows.project_id)
        count += found
        if not found:
            return count


def search(rows: Rows, text: str, **wanted: Any) -> list[str | None]:
    with transaction(rows.services.sessions) as session:
        found = list_trajectories(session, rows.project_id, TrajectoryFilter(text=text, **wanted), with_messages=False)
        return [row.trajectory_id for row in found]


CALL = {"id": "call_7", "type": "function", "function": {"name": "find_order", "arguments": '{"city": "Z\\u00fcrich"}'}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "user", "content": "Is it in stock?"}, "Is it in stock"),
        (
            {"role": "user", "content": [{"type": "text", "text": "here"}, {"type": "image_url", "image_url": {}}]},
            "here",
        ),
        ({"role": "assistant", "content": None, "refusal": "I can't."}, "I can t"),
        ({"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}, "2 2 4"),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, "find order city Zürich"),
        ({"role": "assistant", "content": "", "function_call": {"name": "go", "arguments": "north"}}, "go north"),
        ({"role": "tool", "tool_call_id": "call_7", "content": '[{"sum": 3.5, "ok": true}]'}, "sum 3 5 ok"),
        ({"role": "tool", "tool_call_id": "call_7", "content": '{"broken": '}, "broken"),
        ({"role": "tool", "tool_call_id": "c", "content": json.dumps({"a": {"b": ["c", {"d": -1}]}})}, "a b c d 1"),
        ({"role": "user", "content": "https://example.com/a-b?c=d_e"}, "https example com a b c d e"),
        ({"role": "user", "content": "ＡＢＣ ﬁne"}, "ABC fine"),
        ({"role": "user", "content": "北京abcカ"}, "北 京 abc カ"),
        ({"role": "user", "content": "हिन्दी कैसे"}, "हिन्दी कैसे"),
        ({"role": "user", "content": "x" * 300}, f"{'x' * 255} {'x' * 45}"),
        ({"role": "user", "content": 7, "tool_calls": [None, {"function": 1}, {}]}, ""),
        ({"role": "user", "content": "[" * 100_000}, ""),
        ({}, ""),
    ],
)
def test_the_words_of_a_message(message: dict[str, Any], expected: str) -> None:
    assert words_of([message]) == expected


_SPACELESS = "".join(rf"\p{{{name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
_WORD = regex.compile(rf"(?V1)[{_SPACELESS}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{_SPACELESS}]]{{1,255}}")
"""What a word is, in one expression."""


def test_words_are_runs_of_letters_and_digits_in_any_script() -> None:
    draw = random.Random(0)
    scripts = [(32, 127), (0x80, 0x300), (0x300, 0x1400), (0x1780, 0x1800), (0x3040, 0x3100), (0x4E00, 0x5000)]
    scripts += [(0xA000, 0xD800), (0xE000, 0x30000)]
    texts = ["".join(chr(draw.randrange(*draw.choice(scripts))) for _ in range(200)) for _ in range(100)]
    texts += ["a" * 700, "a" * 255 + " b", "\u00e4" * 600 + "\u6f22\u5b57", "a_b-c\tD\n1.5", "\ufdfa" * 40, " \x00 "]
    for text in texts:
        assert words_of([{"content": text}]) == " ".join(_WORD.findall(unicodedata.normalize("NFKC", text)))


def test_a_search_finds_words_as_the_search_of_feedback_does(rows: Rows) -> None:
    texts = (
        "The agent was rude to the customer.",
        "Polite, but the REFUND was wrong",
        "refund done; customer happy",
        "Überweisung — zu langsam 🐢",
        "see api.example.com/v2/get_weather, and e-mail anna@example.org",
    )
    rows.task("a", [said(text) for text in texts])
    assert search(rows, "refund") == [], "what was not indexed yet is not found, and nothing else"
    assert index(rows) == 5

    def found(text: str) -> list[int]:
        return [next(n for n, each in enumerate(texts) if each.startswith(str(i))) for i in search(rows, text)]

    assert found("refund") == [1, 2]
    assert found("customer -rude") == [2]
    assert found('"refund was"') == [1]
    assert found('"was refund"') == []
    assert found("rude or happy") == [0, 2]
    assert found("überweisung") == found("ÜBERWEISUNG") == [3]
    assert found("refund nobody") == []
    assert found("weather") == found("get_weather") == found("example.com") == found("anna@example.org") == [4]
    assert found("example.net") == found("weather.get") == []
    assert found('-"rude"') == [1, 2, 3, 4]
    assert found("user") == found("assistant") == [], "a role is no word"
    for odd in (
        "'; drop table trajectories; --",
        "& | ! ( :*",
        '"',
        "-",
        '-"',
        "\\",
        "a" * 500,
        "or",
        "or or",
        "🐢",
        "",
    ):
        assert found(odd) == [], odd


@pytest.mark.parametrize(
    ("text", "hits", "misses"),
    [
        ("我想去北京，明天出发。", ("北京", "明天", "我想 出发"), ("京北", "南京")),
        ("東京でラーメンを食べたい", ("ラーメン", "東京"), ("京東",)),
        ("ผมกินข้าวแล้ว", ("ข้าว", "กิน"), ("ข้ากว",)),
        ("मुझे हिन्दी आती है", ("हिन्दी",), ("हिन",)),
        ("Где мой заказ?", ("ЗАКАЗ", '"мой заказ"'), ("зака",)),
        ("أين طلبي؟", ("طلبي",), ("طلب",)),
        ("Straße naïve café", ("naïve", "CAFÉ"), ("naive",)),
    ],
)
def test_any_language_is_searched(rows: Rows, text: str, hits: Iterable[str], misses: Iterable[str]) -> None:
    rows.task("a", [said(text), said("another")])
    index(rows)
    for hit in hits:
        assert search(rows, hit) == [text[:40]], hit
    for miss in misses:
        assert search(rows, miss) == [], miss


@pytest.mark.parametrize("near", [2, 5000], ids=["few are near", "all are near"])
def test_a_search_is_narrowed_and_paged_both_ways(rows: Rows, near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_NEAR", near)
    rows.task("a", [said(f"order {n}", session_id=f"s{n % 2}", reward=n / 10) for n in range(10)])
    rows.task("b", [said("order of another task")])
    index(rows)
    assert search(rows, "order", task="a", session_id="s1", min_reward=0.5) == ["order 5", "order 7", "order 9"]
    with transaction(rows.services.sessions) as session:
        for newest in (False, True):
            found: list[str | None] = []
            after = 0
            while True:
                wanted = TrajectoryFilter(text="order", task="a")
                page = list_trajectories(session, rows.project_id, wanted, newest=newest, after=after, limit=3)
                if not page:
                    break
                found, after = [*found, *(row.trajectory_id for row in page)], page[-1].seq
            assert found == [f"order {n}" for n in (reversed(range(10)) if newest else range(10))]


def test_each_trajectory_is_indexed_once_whatever_comes_and_goes(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_BATCH", 4)
    rows.task("a", [said(f"order {n}") for n in range(6)])
    with transaction(rows.services.sessions) as session:
        assert projects_to_index(session) == [rows.project_id]
        assert index_words(session, rows.project_id) == 4
    assert search(rows, "order") == [f"order {n}" for n in range(4)]
    with transaction(rows.services.sessions) as session:  # the newest that is indexed, and one that is not
        newest = sa.select(Trajectory.seq).order_by(Trajectory.seq).offset(3).limit(2)
        session.execute(sa.delete(Trajectory).where(Trajectory.seq.in_(newest)))
    assert index(rows) == 1
    rows.task("b", [said("order 6")])
    assert index(rows) == 1
    assert search(rows, "order") == [f"order {n}" for n in (0, 1, 2, 5, 6)]
    with transaction(rows.services.sessions) as session:
        assert projects_to_index(session) == []
        assert session.scalar(sa.select(sa.func.count()).select_from(TrajectoryWords)) == 5
        stranger = Project(name="elsewhere")
        session.add(stranger)
        session.flush()
        assert list_trajectories(session, stranger.id, TrajectoryFilter(text="order")) == []


def test_few_long_ones_are_read_at_once(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_BATCH_BYTES", 1)
    rows.task("a", [said(f"order {n}") for n in range(3)])
    with transaction(rows.services.sessions) as session:
        assert index_words(session, rows.project_id) == 1, "one at least"
    assert index(rows) == 2


def test_a_deletion_takes_the_words_along(rows: Rows) -> None:
    with_secrets(rows)
    index(rows)
    assert len(search(rows, SECRET)) == 20
    assert "'tulip'" in whole_database(rows)
    delete(rows, "user", "anna-92")
    assert search(rows, SECRET) == []
    assert "tulip" not in whole_database(rows)


def test_what_is_being_deleted_is_waited_for_and_left_out(rows: Rows) -> None:
    rows.task("a", [said(f"order {n}") for n in range(3)])
    indexed: list[int] = []
    indexing = threading.Thread(target=lambda: indexed.append(index(rows)))
    with transaction(rows.services.sessions) as session:
        session.execute(sa.delete(Trajectory).where(Trajectory.trajectory_id == "order 1"))
        indexing.start()
        _wait_for_a_lock(rows)
    indexing.join(20)
    assert indexed
    assert search(rows, "order") == ["order 0", "order 2"]


def _wait_for_a_lock(rows: Rows) -> None:
    """Until some other connection waits for one."""
    waiting = sa.text(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    ends_at = time.monotonic() + 20
    with rows.services.engine.connect() as connection:
        while not connection.scalar(waiting):
            connection.rollback()
            assert time.monotonic() < ends_at, "nobody waits"
            time.sleep(0.02)


def _unique(alphabet: str, length: int, glue: str) -> str:
    """As much of different words as is read at all."""
    every = map("".join, itertools.product(alphabet, repeat=length))
    return glue.join(itertools.islice(every, 2 * MOST_BYTES // length))


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
HOSTILE = {
    "short words": _unique(LETTERS, 3, " "),
    "long words": _unique(LETTERS, 4, " "),
    "letters of three bytes": " ".join(map(chr, range(0xAC00, 0xD7A3))) * 3,
    "letters that grow when they are lowered": _unique("ȺȾİ" + LETTERS[:7], 6, " "),
    "characters that become eighteen": "\ufdfa" * MOST_BYTES,
    "one word": "x" * 1_000_000,
    "one word again and again": "x " * 500_000,
    "hyphens": _unique(LETTERS, 3, "-"),
    "slashes": "a/" * 500_000,
    "tags that never end": '<a "' * 200_000,
    "dots": "a." * 500_000,
    "ats": "a@" * 500_000,
    "Chinese": "".join(map(chr, range(0x4E00, 0x9FFF))) * 10,
    "marks": "e" + "\u0301" * 500_000,
    "brackets": "[" * 500_000,
    "emoji": "🐢" * 200_000,
    "digits": "1" * 1_000_000,
    "line separators": "a\u2028b\u0085" * 100_000,
}


def test_nothing_that_is_sent_stops_the_index_or_makes_it_slow(rows: Rows) -> None:
    rows.task("a", [{**said(text), "trajectory_id": name} for name, text in HOSTILE.items()])
    rows.task("b", [said("order")])
    began = time.monotonic()
    assert index(rows) == len(HOSTILE) + 1
    assert time.monotonic() - began < 30
    assert search(rows, "order") == ["order"]
    assert search(rows, "x" * 255)[:1] == ["one word"]
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(TrajectoryWords)) == len(HOSTILE) + 1


def test_projects_wait_for_themselves_alone(rows: Rows) -> None:
    rows.task("a", [said("order")])
    with transaction(rows.services.sessions) as session:
        empty = Project(id=uuid.uuid4(), name="empty")
        session.add(empty)
        session.flush()
        assert projects_to_index(session) == [rows.project_id]
        assert index_words(session, empty.id) == 0
    index(rows)
    with transaction(rows.services.sessions) as session:
        assert projects_to_index(session) == []
