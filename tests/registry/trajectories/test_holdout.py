"""The held-out share: what begins alike is on one side, also rows of before that was so; and the warning when it is
most of a task."""

import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from registry.database import migration_config, transaction, upgrade
from registry.datasets import snapshots
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.errors import EmptyDataset, Invalid, NameTaken
from registry.models import Trajectory
from registry.tasks import create_task, get_task
from registry.trajectories.holdout import MIN_ALIKE, beginning_hash, find_shared_prefix_group, held_out
from registry.trajectories.imports import ImportReport, LineResult, import_batch, read_item, warn_of_shared_prefixes
from tests.registry.conftest import TOKENS, Rows, chats
from tests.trajectory_samples import call, changed, chat, tool_chat


def turns(*texts: str, weights: tuple[int | None, ...] = ()) -> list[dict[str, Any]]:
    """Users and assistants by turns; `weights` of the assistants from the first on."""
    found: list[dict[str, Any]] = []
    for place, text in enumerate(texts):
        found.append({"role": ("user", "assistant")[place % 2], "content": text})
        if place % 2 and len(weights) > place // 2 and weights[place // 2] is not None:
            found[-1]["weight"] = weights[place // 2]
    return found


def talks(count: int, *opening: str, word: str = "order") -> list[dict[str, Any]]:
    """Conversations that all open alike."""
    return [{"messages": turns(*opening, f"Where is {word} {n}?", f"{n} is here.")} for n in range(count)]


def _send(rows: Rows, task: str, items: list[dict[str, Any]]) -> list[LineResult]:
    with transaction(rows.services.sessions) as session:
        sent = [read_item(place, item) for place, item in enumerate(items)]
        return import_batch(session, rows.project_id, sent, default_task=task, tokens=TOKENS)


def _snapshot(rows: Rows, task: str) -> list[Trajectory]:
    """What a training reads, recorded."""
    with transaction(rows.services.sessions) as session:
        taken = rows.snapshot(session, task)
        snapshots.record_dataset(session, taken)
        return [session.get_one(Trajectory, trajectory_id) for trajectory_id, _ in taken.items]


def _suite(rows: Rows, task: str) -> list[Trajectory]:
    with transaction(rows.services.sessions) as session:
        suite = freeze_suite(session, get_task(session, rows.project_id, task))
        return suite_trajectories(session, suite.id) if suite else []


# Beginnings


def test_a_beginning_is_what_stands_before_the_first_answer() -> None:
    messages = tool_chat()["messages"]
    expected = beginning_hash(messages)
    assert expected is not None
    for same in (
        messages[:3],
        changed(tool_chat(), "messages", 1, "content", to="Where is order 7?")["messages"],
        changed(tool_chat(), "messages", 2, "tool_calls", 1, to=call("c2", order="9"))["messages"],
        changed(tool_chat(), "messages", 2, "weight", to=0)["messages"],
        changed(tool_chat(), "messages", 5, "content", to="No idea.")["messages"],
    ):
        assert beginning_hash(same) == expected
    for other in (
        messages[1:],
        changed(tool_chat(), "messages", 0, "content", to="Hinder.")["messages"],
    ):
        assert beginning_hash(other) != expected


SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}
READ_ALIKE: dict[str, list[dict[str, Any]]] = {
    "developer": [{**SYSTEM, "role": "developer"}, ASKED],
    "parts": [{**SYSTEM, "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]}, ASKED],
    "spaces around": [{**SYSTEM, "content": "\n Be brief. "}, {**ASKED, "content": "Where?\n"}],
    "names": [{**SYSTEM, "name": "operator"}, {**ASKED, "name": "anna"}],
    "unknown fields": [{**SYSTEM, "cache_control": {"type": "ephemeral"}}, {**ASKED, "id": "m1", "weight": None}],
    "one message, for a base without system turns": [{"role": "user", "content": "Be brief.\n\nWhere?"}],
    "neighbours": [{"role": "system", "content": "Be brief."}, {"role": "system", "content": ""}, ASKED],
    "a late system message, shown as the user's": [{**SYSTEM, "role": "user"}, {**ASKED, "role": "developer"}],
    "no words in front": [{"role": "system", "content": " "}, SYSTEM, ASKED],
}
READ_OTHERWISE: dict[str, list[dict[str, Any]]] = {
    "another order": [{**ASKED, "role": "system"}, {**SYSTEM, "role": "user"}],
    "less": [ASKED],
    "another normal form": [SYSTEM, {"role": "user", "content": "Whe\u0301re?"}],
    "spaces within": [SYSTEM, {"role": "user", "content": "Where ?"}],
    "another case": [SYSTEM, {"role": "user", "content": "where?"}],
    "an answer between": [SYSTEM, *turns("Where?", "Here."), ASKED],
}
ANSWER = {"role": "assistant", "content": "Here."}


@pytest.mark.parametrize("kind", READ_ALIKE)
def test_what_a_base_may_read_as_one_begins_alike(kind: str) -> None:
    assert beginning_hash([*READ_ALIKE[kind], ANSWER]) == beginning_hash([SYSTEM, ASKED, ANSWER])


@pytest.mark.parametrize("kind", READ_OTHERWISE)
def test_what_every_base_reads_otherwise_begins_otherwise(kind: str) -> None:
    messages = [*READ_OTHERWISE[kind], ANSWER]
    shared = len([m for m in messages if m["role"] == "assistant"]) - 1
    assert beginning_hash(messages, shared) != beginning_hash([SYSTEM, ASKED, ANSWER])


def _called(*calls: Any, **more: Any) -> list[dict[str, Any]]:
    """A conversation whose second answer tells it apart, behind one that calls."""
    first = {"role": "assistant", "tool_calls": list(calls), **more}
    return [ASKED, first, {"role": "tool", "tool_call_id": "c1", "content": "7"}, {**ASKED, "content": "So?"}, ANSWER]


def test_a_past_call_counts_by_name_and_arguments_however_it_is_written() -> None:
    def go(arguments: Any, **more: Any) -> dict[str, Any]:
        return {"id": "c1", "type": "function", "function": {"name": "go", "arguments": arguments}, **more}

    expected = beginning_hash(_called(go('{"to": "x", "by": 1}')), 1)
    alike = [
        _called(go('{"by":1,"to":"x"}', id="z")),
        _called(go({"to": "x", "by": 1}), content=None),
        _called(go('{"to": "x", "by": 1}'), content=[], refusal=None, reasoning_content="because"),
        _called(function_call={"name": "go", "arguments": '{"to": "x", "by": 1}'}),
    ]
    assert [beginning_hash(each, 1) for each in alike] == [expected] * len(alike)
    nothing = [beginning_hash(_called(go(arguments)), 1) for arguments in ("", "{}", None, {})]
    assert len(set(nothing)) == 1
    deep = "[" * 5000 + "]" * 5000
    odd = ['{"to": "x"', '{"to": "\\ud83d"}', '{"to": NaN}', "[1, 2]", deep, '{"n": ' + "9" * 5000 + "}"]
    hashes = [beginning_hash(_called(go(arguments)), 1) for arguments in odd]
    assert len({expected, *nothing, *hashes}) == len(odd) + 2
    custom = {"type": "custom", "custom": {"name": "go", "input": "north"}}
    assert beginning_hash(_called(custom), 1) not in {expected, *nothing, *hashes}


def test_sides_do_not_differ_by_role_names_and_parts(rows: Rows) -> None:
    """Sixty pairs, each sent in two forms: no pair is on two sides."""
    system = {"role": "system", "content": "Be brief."}
    asked = [{"role": "user", "content": f"Where is order {n}?"} for n in range(60)]
    answer = {"role": "assistant", "content": "Here."}
    other = [{"type": "text", "text": "Be brief."}]
    plain = _send(rows, rows.task("a", []), [{"messages": [system, each, answer]} for each in asked])
    odd = [{"messages": [{"role": "developer", "content": other}, each, answer]} for each in asked]
    assert [result.held_out for result in _send(rows, "a", odd)] == [result.held_out for result in plain]
    assert {result.held_out for result in plain} == {True, False}


def test_the_migration_holds_out_what_begins_like_held_out_rows_as_read(rows: Rows, database_url: str) -> None:
    """Rows of before, a pair for each question: as `system`, and as `developer` in parts."""

    def pair(n: int) -> list[dict[str, Any]]:
        said = [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": f"A{n}"}]
        developer = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
        return [{"messages": [{"role": "system", "content": "Be brief."}, *said]}, {"messages": [developer, *said]}]

    rows.task("a", [item for n in range(4) for item in pair(n)])
    rows.task("b", pair(0))
    within = {"messages": [*pair(9)[0]["messages"], {"role": "user", "content": "And?"}]}
    rows.task("shared", [within], shared_turns=1)
    before = [True, False, False, True, True, True, False, False, True, False, False]
    config = migration_config(database_url)
    rows.services.engine.dispose()
    command.downgrade(config, "0010")
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        seqs = connection.scalars(sa.text("select seq from trajectories order by seq")).all()
        for seq, side in zip(seqs, before, strict=True):
            connection.execute(sa.text(f"update trajectories set held_out = {side} where seq = {seq}"))
        learned = connection.scalar(sa.text("select id from trajectories where seq = :seq"), {"seq": seqs[1]})
        old = connection.scalars(sa.text("select beginning_hash from trajectories order by seq")).all()
        dataset = {"id": uuid.uuid4(), "project": rows.project_id, "trajectory": learned}
        for statement in (
            "insert into datasets (id, project_id, task_id, content_hash, manifest, object_key, created_at) "
            "select :id, :project, k.id, 'x', '{}', 'x', now() from tasks k where k.name = 'a'",
            "insert into dataset_items values (:id, 0, :trajectory, false)",
        ):
            connection.execute(sa.text(statement), dataset)
    assert len(set(old[:2])) == 2, "rows of before have hashes that tell them apart"
    notes = upgrade(database_url)
    with transaction(rows.services.sessions) as session:
        found = session.scalars(sa.select(Trajectory).order_by(Trajectory.seq)).all()
        assert [row.held_out for row in found] == [*[True] * 6, False, False, True, True, False]
        assert [row.beginning_hash for row in found[:-1]] == [beginning_hash(row.messages) for row in found[:-1]]
        assert found[-1].beginning_hash is None
    assert [note.partition(" are held out")[0] for note in notes] == [
        "2 trajectories of task 'a' (project 'default')",
        "1 trajectories of task 'b' (project 'default')",
    ]
    assert "1 of them were trained on" in notes[0]
    assert "0 of them were trained on" in notes[1]
    command.downgrade(config, "0010")
    with engine.connect() as connection:
        assert connection.scalars(sa.text("select beginning_hash from trajectories order by seq")).all() == old
        sides = connection.scalars(sa.text("select held_out from trajectories order by seq")).all()
    assert sides == [*[True] * 6, False, False, True, True, False]
    assert upgrade(database_url) == []
    engine.dispose()


def test_the_migration_reads_whatever_stands_in_a_past_turn(rows: Rows, database_url: str) -> None:
    """The copies of the hash in the migration and in the code are one, also on rows that the older code could not
    read."""
    past = [
        _called({"function": {"name": "go", "arguments": text}}) for text in ("", "{", "[1]", '{"a": "\\ud83d"}', "{}")
    ]
    past += [
        _called(function_call={"name": "go", "arguments": "{}"}),
        _called({"type": "custom", "custom": {"name": "f"}}),
    ]
    past += [[{"role": "user", "content": [{"type": "refusal", "refusal": "No."}]}, ANSWER, ASKED, ANSWER]]
    rows.task("shared", talks(len(past), "Begin.", "What?"), shared_turns=1)
    with transaction(rows.services.sessions) as session:
        for row, messages in zip(session.scalars(sa.select(Trajectory)).all(), past, strict=True):
            row.messages = messages
    config = migration_config(database_url)
    rows.services.engine.dispose()
    command.downgrade(config, "0010")
    upgrade(database_url)
    with transaction(rows.services.sessions) as session:
        for row in session.scalars(sa.select(Trajectory)):
            assert row.beginning_hash == beginning_hash(row.messages, 1)


def test_behind_shared_turns_the_calls_count_and_their_ids_do_not() -> None:
    expected = beginning_hash(tool_chat()["messages"], 1)
    renamed = changed(tool_chat(), "messages", 2, "tool_calls", to=[call("z1"), call("z2", order="8")])
    renamed = changed(renamed, "messages", 3, "tool_call_id", to="z2")
    renamed = changed(renamed, "messages", 4, "tool_call_id", to="z1")
    assert beginning_hash(renamed["messages"], 1) == expected
    called = changed(tool_chat(), "messages", 2, "tool_calls", 1, to=call("c2", order="9"))
    assert beginning_hash(called["messages"], 1) != expected


def test_what_ends_within_the_shared_turns_has_no_beginning_and_is_trained_on() -> None:
    assert beginning_hash(turns("q", "a"), 1) is None
    assert beginning_hash(turns("q", "a", "q2", "a2"), 1) is not None
    # Its last turn is context alone: the one that would be tested is shared.
    assert beginning_hash(turns("q", "a", "q2", "a2", weights=(1, 0)), 1) is None
    assert held_out("t", None, 0.999) is False


def test_held_out_is_deterministic_near_the_share_and_grows_with_it() -> None:
    prompts = [beginning_hash(chat(f"question {n}")["messages"]) for n in range(5000)]
    sides = [held_out("t", prompt, 0.2) for prompt in prompts]
    assert sides == [held_out("t", prompt, 0.2) for prompt in prompts]
    assert 0.17 < sum(sides) / len(sides) < 0.23
    assert sides != [held_out("other", prompt, 0.2) for prompt in prompts]
    assert all(held_out("t", prompt, 0.5) for prompt, side in zip(prompts, sides, strict=True) if side)
    # Fixed: other values would move items of existing installations to the other side.
    assert [held_out("t", f"{n}", 0.5) for n in range(8)] == PINNED
    assert beginning_hash(chat()["messages"]) == PINNED_HASH


PINNED = [True, True, True, False, False, False, True, True]
PINNED_HASH = "73eb9e6884b57edf2b7d63f9803d17679a7ad9f14102d327bf9e7ba5511ae983"


# Sides


def test_all_answers_to_one_prompt_land_on_one_side(rows: Rows) -> None:
    rows.task("a", [])
    results = _send(rows, "a", [chat(f"q{n % 25}", f"a{n}") for n in range(100)])
    sides = {n: {r.held_out for r in results[n::25]} for n in range(25)}
    assert all(len(side) == 1 for side in sides.values())
    assert {True, False} == set().union(*sides.values())


def test_no_held_out_answer_is_a_supervised_turn_of_what_is_trained_on(rows: Rows) -> None:
    """Conversations that grow from upload to upload, with tools that come later and weights of different senders."""
    rows.task("a", [])
    tools = tool_chat()["tools"]
    for n in range(60):
        grown = [f"Q{n}", f"A{n}", f"more {n}", f"B{n}", f"yet more {n}", f"C{n}"]
        for length, extra in ((2, {}), (4, {"tools": tools}), (6, {})):
            _send(rows, "a", [{"messages": turns(*grown[:length]), **extra}])
        _send(rows, "a", [{"messages": turns(*grown, weights=(0, 0, 1))}])
    tested = {(_key(row.messages[:-1]), row.messages[-1]["content"]) for row in _suite(rows, "a")}
    assert len(tested) > 20
    trained = _snapshot(rows, "a")
    assert len(trained) > 80
    learned = {
        (_key(row.messages[:place]), message["content"])
        for row in trained
        for place, message in enumerate(row.messages)
        if message["role"] == "assistant" and message.get("weight") != 0
    }
    assert not tested & learned


def _key(messages: list[dict[str, Any]]) -> str:
    return repr([(message["role"], message["content"]) for message in messages])


def test_conversations_that_open_alike_are_told_apart_behind_the_shared_turns(rows: Rows) -> None:
    opening = "Begin.", "What can I do?"
    rows.task("same", talks(60, *opening))
    assert len(_suite(rows, "same")) in (0, 60)
    rows.task("shared", talks(60, *opening), shared_turns=1)
    tested = {row.messages[2]["content"] for row in _suite(rows, "shared")}
    assert 5 < len(tested) < 30
    grown = [f"Where is order {n}?" for n in range(60)]
    results = _send(rows, "shared", [{"messages": turns(*opening, q, "x", "And then?", "y")} for q in grown])
    assert {q for q, result in zip(grown, results, strict=True) if result.held_out} == tested
    [short] = _send(rows, "shared", [{"messages": turns(*opening)}])
    assert not short.held_out


def test_shared_turns_are_part_of_a_task(rows: Rows) -> None:
    rows.task("a", [], shared_turns=2)
    with transaction(rows.services.sessions) as session:
        spec = {"grader": {"kind": "exact"}, "holdout_share": 0.25}
        assert create_task(session, rows.project_id, "a", **spec, shared_turns=2)[1] is False
        with pytest.raises(NameTaken, match="shared_turns"):
            create_task(session, rows.project_id, "a", **spec)
        for wrong in (-1, 1001):
            with pytest.raises(Invalid, match=f"shared_turns {wrong}"):
                create_task(session, rows.project_id, "b", **spec, shared_turns=wrong)


# Rows that are older than the draw


def test_what_begins_like_stored_rows_goes_where_they_are(rows: Rows) -> None:
    rows.task("a", chats(30))
    with transaction(rows.services.sessions) as session:
        session.execute(sa.update(Trajectory).values(held_out=~Trajectory.held_out))
        before = {row.messages[0]["content"]: row.held_out for row in session.scalars(sa.select(Trajectory))}
    grown = [{"messages": [*item["messages"], *turns("And?", "Yes.")]} for item in chats(30)]
    sides = {item["messages"][0]["content"]: r.held_out for item, r in zip(grown, _send(rows, "a", grown), strict=True)}
    assert sides == before
    assert set(sides.values()) == {True, False}


def test_what_begins_like_something_trained_on_is_in_no_suite(rows: Rows) -> None:
    rows.task("a", chats(40))
    [moved, *_] = _snapshot(rows, "a")
    before = [row.id for row in _suite(rows, "a")]
    with transaction(rows.services.sessions) as session:
        session.get_one(Trajectory, moved.id).held_out = True
    [beside] = _send(rows, "a", [{"messages": [*moved.messages, *turns("And?", "Yes.")]}])
    assert beside.held_out
    assert [row.id for row in _suite(rows, "a")] == before


def test_the_migration_moves_nothing_from_held_out_to_training(rows: Rows, database_url: str) -> None:
    """Rows that were drawn by what stands before their last turn: three conversations, and each as it had begun."""
    begun = [{"messages": turns(f"Q{n}", f"A{n}")} for n in range(3)]
    grown = [{"messages": turns(f"Q{n}", f"A{n}", f"R{n}", f"B{n}")} for n in range(3)]
    odd = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q0"}]}, *turns("Q0", "A0")[1:]]}
    rows.task("a", [*begun, *grown, odd])
    sides = [True, True, False, False, True, False, False]
    config = migration_config(database_url)
    rows.services.engine.dispose()
    command.downgrade(config, "0007")  # whatever came after it
    command.downgrade(config, "-1")
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        seqs = connection.scalars(sa.text("select seq from trajectories order by seq")).all()
        for seq, side in zip(seqs, sides, strict=True):
            change = "update trajectories set prompt_hash = 'old' || seq, held_out = :side where seq = :seq"
            connection.execute(sa.text(change), {"seq": seq, "side": side})
    command.upgrade(config, "head")
    with transaction(rows.services.sessions) as session:
        found = session.scalars(sa.select(Trajectory).order_by(Trajectory.seq)).all()
        assert [row.held_out for row in found] == [True, True, False, True, True, False, True]
        assert [row.beginning_hash for row in found] == [beginning_hash(row.messages) for row in found]
    engine.dispose()


# Most of a task on one side


def _shared_prefix(rows: Rows, task: str) -> str | None:
    with transaction(rows.services.sessions) as session:
        group = find_shared_prefix_group(session, get_task(session, rows.project_id, task))
        return str(group) if group else None


def test_a_task_that_begins_alike_is_told(rows: Rows) -> None:
    rows.task("usual", chats(60))
    rows.task("few", talks(MIN_ALIKE - 1, "Begin.", "What?"))
    rows.task("shared", talks(60, "Begin.", "What?"), shared_turns=1)
    assert [_shared_prefix(rows, task) for task in rows.task_names] == [None, None, None]
    rows.task("alike", [*talks(30, "Begin.", "What?"), *chats(10)])
    warning = _shared_prefix(rows, "alike")
    assert warning is not None
    assert warning.startswith("30 of 40 trajectories of task 'alike' begin alike and so are all on one side: ")
    assert "shared_turns 1" in warning
    rows.task("short", talks(30, "Begin.", "What?"), shared_turns=9)
    assert _shared_prefix(rows, "short") == (
        "30 of 30 trajectories of task 'short' end within the first 9 assistant turns, which all of its "
        "conversations share by its `shared_turns`; they are trained on and never held out"
    )


def test_an_import_warns_of_the_tasks_that_got_many(rows: Rows) -> None:
    rows.task("alike", [])
    for count, warnings in ((MIN_ALIKE - 1, 0), (MIN_ALIKE, 1)):
        report = ImportReport()
        report.add(_send(rows, "alike", talks(count, "Begin.", "What?", word=uuid.uuid4().hex)))
        with transaction(rows.services.sessions) as session:
            warn_of_shared_prefixes(session, rows.project_id, report)
        assert len(report.warnings) == warnings
    assert report.warnings == [_shared_prefix(rows, "alike")]


def test_nothing_to_train_on_says_that_all_is_held_out_together(rows: Rows) -> None:
    rows.task("alike", talks(30, "Begin.", "What?"), share=0.999)
    with pytest.raises(EmptyDataset, match="begin alike"):
        _snapshot(rows, "alike")


@pytest.mark.parametrize("junk", [5, True, "auto", {"a": 1}, [None], [{"type": "text", "text": "t"}]])
def test_fields_that_nobody_checked_break_neither_import_nor_migration(junk: Any) -> None:
    migrated = ScriptDirectory.from_config(migration_config("")).get_revision("0011").module._beginning_hash
    part = {"type": "refusal", "refusal": "no", "text": junk}
    plain = [{"role": "user", "content": "no"}, {"role": "assistant", "content": "a", "weight": 0}]
    sent = [
        {"role": "user", "content": [part], "refusal": junk},
        {"role": "assistant", "content": "a", "weight": 0, "refusal": junk},
    ]
    if not isinstance(junk, dict):
        sent[1]["function_call"] = junk
    rest = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]
    for shared in (0, 1):
        expected = beginning_hash([*plain, *rest], shared)
        assert beginning_hash([*sent, *rest], shared) == migrated([*sent, *rest], shared) == expected
    silent = {"role": "assistant", "content": "", "weight": 0, "refusal": junk, "function_call": junk}
    assert beginning_hash([plain[0], silent, *rest], 1) == migrated([plain[0], silent, *rest], 1)
