"""Format `atif`: documents as Harbor's agents write them, the rules of the standard, and hostile documents."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidTrajectory
from registry.trajectories.draft import Draft
from registry.trajectories.files import SizeLimits
from registry.trajectories.formats import atif
from tests.trajectory_samples import LOOKUP, changed, drafts, read_file

AGENT = {"name": "terminus-2", "version": "2.0.0", "model_name": "anthropic/claude-sonnet-4-5"}


def step(number: int, source: str, message: Any, **more: Any) -> dict[str, Any]:
    return {
        "step_id": number,
        "timestamp": "2026-01-05T10:00:00Z",
        "source": source,
        "message": message,
        **more,
    }


def call(call_id: str, name: str = "lookup", **arguments: Any) -> dict[str, Any]:
    return {"tool_call_id": call_id, "function_name": name, "arguments": arguments}


def results(*found: dict[str, Any]) -> dict[str, Any]:
    return {"results": list(found)}


TERMINUS = {
    "schema_version": "ATIF-v1.7",
    "session_id": "0b7c6a4e",
    "agent": {**AGENT, "extra": {"parser": "json", "temperature": 0.7}},
    "steps": [
        step(1, "user", "You are an AI assistant tasked with solving command-line tasks. Task: count lines."),
        step(
            2, "agent", "Analysis: An empty terminal.\nPlan: Look at the file first.",
            model_name="anthropic/claude-sonnet-4-5",
            tool_calls=[
                call("call_0_1", "bash_command", keystrokes="ls\n", duration=0.1),
                call("call_0_2", "bash_command", keystrokes="wc -l a.txt\n", duration=0.1),
            ],
            observation=results({"content": "New Terminal Output:\n# ls\na.txt\n# wc -l a.txt\n3 a.txt"}),
            metrics={"prompt_tokens": 812, "completion_tokens": 96, "cost_usd": 0.004, "logprobs": [-0.1]},
        ),
        step(
            3, "agent", "Analysis: There are 3 lines.\nPlan: Done.",
            tool_calls=[call("call_1_task_complete", "mark_task_complete")],
            observation=results({"content": "Are you sure you want to mark the task as complete?"}),
        ),
    ],
    "final_metrics": {"total_prompt_tokens": 1700, "total_completion_tokens": 150, "total_cost_usd": 0.01},
}  # fmt: skip
"""As terminus-2 writes it: several commands of a step, one terminal output for all of them, without a call's id."""

REACT = {
    "schema_version": "ATIF-v1.8",
    "trajectory_id": "t-1",
    "session_id": "s-1",
    "agent": {**AGENT, "tool_definitions": [LOOKUP]},
    "steps": [
        step(1, "system", "Help."),
        step(2, "user", [{"type": "text", "text": "Where are 7 and 8?"}]),
        step(
            3, "agent", "",
            reasoning_content="Two calls.",
            tool_calls=[call("c1", order="7"), call("c2", order="8")],
            observation=results(
                {"source_call_id": "c2", "content": "lost"},
                {"source_call_id": "c1", "content": [{"type": "text", "text": "shipped"}]},
            ),
        ),
        step(4, "agent", "7 is shipped, 8 is lost."),
    ],
    "notes": "A test.",
    "extra": {"reward": 1, "memgen": {"task": "orders"}, "suite": "demo"},
}  # fmt: skip


def one(document: object) -> Draft:
    [draft] = drafts([(1, found) for found in atif.read(document)])
    return draft


def test_terminal_agents_see_one_output_of_several_commands() -> None:
    draft = one(TERMINUS)
    roles = [(m["role"], m.get("tool_call_id")) for m in draft.messages]
    assert roles == [
        ("user", None),
        ("assistant", None),
        ("tool", "call_0_1"),
        ("assistant", None),
        ("tool", "call_1_task_complete"),
    ]
    assert draft.messages[1]["tool_calls"][1]["function"] == {
        "name": "bash_command",
        "arguments": '{"keystrokes": "wc -l a.txt\\n", "duration": 0.1}',
    }
    assert draft.session_id == "0b7c6a4e"
    assert draft.metadata["atif"]["agent"] == "terminus-2"


def test_a_react_agent_with_tools_and_an_envelope() -> None:
    draft = one(REACT)
    assert [(m["role"], m["content"]) for m in draft.messages] == [
        ("system", "Help."),
        ("user", [{"type": "text", "text": "Where are 7 and 8?"}]),
        ("assistant", None),
        ("tool", [{"type": "text", "text": "shipped"}]),
        ("tool", "lost"),
        ("assistant", "7 is shipped, 8 is lost."),
    ]
    assert draft.messages[2]["reasoning_content"] == "Two calls."
    assert draft.tools == [LOOKUP]
    assert (draft.task, draft.reward, draft.trajectory_id, draft.session_id) == ("orders", 1.0, "t-1", "s-1")
    assert draft.metadata["suite"] == "demo"
    assert draft.metadata["atif"]["notes"] == "A test."


def test_copied_steps_and_what_no_model_said_are_context() -> None:
    document = changed(REACT, "steps", 2, "is_copied_context", to=True)
    assert [m.get("weight") for m in one(document).messages if m["role"] == "assistant"] == [0, None]
    document = changed(changed(REACT, "steps", 2, "llm_call_count", to=0), "steps", 2, "reasoning_content", to=None)
    assert [m.get("weight") for m in one(document).messages if m["role"] == "assistant"] == [0, None]
    document = changed(
        changed(REACT, "steps", 2, "is_copied_context", to=True), "steps", 3, "is_copied_context", to=True
    )
    [refusal] = atif.read(document)
    assert isinstance(refusal, InvalidTrajectory)
    assert refusal.code == "nothing_to_learn"


def test_a_silent_step_is_context() -> None:
    document = changed(REACT, "steps", 3, "message", to="")
    assert [m.get("weight") for m in one(document).messages if m["role"] == "assistant"] == [None, 0]


REF = [{"trajectory_path": "x"}]


def test_what_no_call_asked_for_is_said_by_the_user() -> None:
    document = {**REACT, "steps": [
        *REACT["steps"][:2],  # type: ignore[index]  # a list
        step(3, "agent", "ls", observation=results({"content": "a.txt"}, {"subagent_trajectory_ref": REF})),
        step(4, "agent", "Done."),
    ]}  # fmt: skip
    said = [(m["role"], m["content"]) for m in one(document).messages[2:]]
    assert said == [("assistant", "ls"), ("user", "a.txt"), ("assistant", "Done.")]


def test_a_result_that_stands_in_a_later_step_answers_its_call() -> None:
    """As agents write it that keep results as events of their own, and exporters of orphaned results."""
    called = changed(REACT, "steps", 2, "observation", to=None)
    later = [
        step(4, "system", "", observation=results({"source_call_id": "c2", "content": "lost"})),
        step(5, "agent", "Half of it.", observation=results({"source_call_id": "c1", "content": "shipped"})),
        step(6, "agent", "7 is shipped, 8 is lost."),
    ]
    found = one({**called, "steps": [*called["steps"][:3], *later]}).messages
    assert [m["tool_call_id"] for m in found if m["role"] == "tool"] == ["c2", "c1"]


@pytest.mark.parametrize("message", ["Executed lookup c1", "(tool use)"])
def test_a_placeholder_of_a_step_that_only_calls_is_not_learned(message: str) -> None:
    """Harbor writes a message of its own for each call of Claude Code's and Codex's: the model said nothing."""
    assert one(changed(REACT, "steps", 2, "message", to=message)).messages == one(REACT).messages
    said = one(changed(REACT, "steps", 3, "message", to=message)).messages[-1]
    assert said["content"] == message, "a step without calls says what it says"


def test_what_is_dropped_is_not_judged() -> None:
    document = changed(REACT, "steps", 0, "timestamp", to=1767607200.5)
    document = changed(document, "steps", 1, "metrics", to={"prompt_tokens": "many"})
    document = changed({**document, "final_metrics": "none"}, "steps", 1, "model_name", to="gpt-5")
    inner = {**document, "trajectory_id": "inner", "extra": None}
    first, second = drafts([(1, found) for found in atif.read({**document, "subagent_trajectories": [inner]})])
    assert first.messages == second.messages == one(REACT).messages


def test_ids_that_come_again_in_later_steps_stay_apart() -> None:
    found = [results({"source_call_id": "c", "content": str(n)}) for n in (3, 4)]
    again = [step(n, "agent", "", tool_calls=[call("c")], observation=each) for n, each in enumerate(found, 3)]
    draft = one({**REACT, "steps": [*REACT["steps"][:2], *again, step(5, "agent", "Done.")]})
    assert [m["content"] for m in draft.messages if m["role"] == "tool"] == ["3", "4"]


def test_subagents_are_trajectories_of_their_own() -> None:
    inner = {**REACT, "trajectory_id": "inner", "extra": None, "subagent_trajectories": None}
    middle = {**inner, "trajectory_id": "middle", "subagent_trajectories": [inner]}
    broken = changed({**inner, "trajectory_id": "broken"}, "steps", to=[step(1, "user", "Only asked.")])
    found = list(atif.read({**REACT, "subagent_trajectories": [middle, broken]}))
    assert [each.code if isinstance(each, InvalidTrajectory) else each.trajectory_id for each in found] == [
        "t-1", "middle", "assistant_missing", "inner",
    ]  # fmt: skip
    last = found[-1]
    assert isinstance(last, Draft)
    assert (last.task, last.reward, last.metadata["atif"]["parent"]) == ("orders", None, "middle")


def test_a_subagent_has_its_parent_s_task_though_that_is_refused() -> None:
    inner = {**REACT, "trajectory_id": "inner", "extra": None, "subagent_trajectories": None}
    document = changed(REACT, "steps", 1, "message", to=[IMAGE]) | {"subagent_trajectories": [inner]}
    refused, found = atif.read(document)
    assert isinstance(refused, InvalidTrajectory)
    assert isinstance(found, Draft)
    assert (found.task, found.metadata["atif"]["parent"]) == ("orders", "t-1")


def test_fields_that_the_standard_does_not_know_are_dropped() -> None:
    document = {**REACT, "is_trial": True, "agent": {**AGENT, "vendor": "x"}}
    document = changed(changed(document, "steps", 2, "latency", to=3), "steps", 1, "message", 0, "cache", to=True)
    document = changed(document, "steps", 2, "observation", "results", 0, "is_error", to=False)
    assert len(one(document).messages) == 6


@pytest.mark.parametrize("version", ["ATIF-v1.0", "ATIF-v1.2", "ATIF-v1.7", "ATIF-v1.8", "ATIF-v1.8.0"])
def test_versions_up_to_the_newest_are_read(version: str) -> None:
    assert one({**TERMINUS, "schema_version": version}).metadata["atif"]["schema_version"] == version


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (7, "not_an_object"),
        ({}, "atif_version"),
        ({**REACT, "schema_version": "ATIF-v1.9"}, "atif_version"),
        ({**REACT, "schema_version": "ATIF-v2.0"}, "atif_version"),
        ({**REACT, "schema_version": 1.7}, "atif_version"),
        ({**REACT, "steps": 7}, "atif_invalid"),
        (changed(REACT, "steps", 1, "step_id", to=7), "atif_invalid"),
        (changed(REACT, "steps", 1, "source", to="narrator"), "atif_invalid"),
        (changed(REACT, "steps", 1, "tool_calls", to=[]), "atif_invalid"),
        (changed(REACT, "steps", 2, "is_copied_context", to="perhaps"), "atif_invalid"),
        (changed(REACT, "steps", 2, "observation", "results", 0, "source_call_id", to="c9"), "atif_invalid"),
        ({**REACT, "subagent_trajectories": [{**REACT, "trajectory_id": None}]}, "atif_invalid"),
    ],
)
def test_what_is_no_such_document_is_refused(document: object, code: str) -> None:
    with pytest.raises(InvalidTrajectory) as caught:
        list(atif.read(document))
    assert caught.value.code == code
    assert len(str(caught.value)) < 2000


IMAGE = {"type": "image", "source": {"media_type": "image/png", "path": "a"}}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (changed(REACT, "steps", 1, "message", to=[IMAGE]), "content_part"),
        (changed(REACT, "agent", "tool_definitions", to=[{"name": "other"}]), "tool_call_undeclared"),
        (changed(REACT, "extra", "memgen", to=7), "memgen_invalid"),
        ({**REACT, "steps": [step(1, "agent", "First.")]}, "nothing_to_learn"),
        ({**REACT, "steps": []}, "messages_empty"),
        (changed(REACT, "steps", 0, "message", to="half \ud83d"), "lone_surrogate"),
        (changed(REACT, "notes", to="a\0b"), "nul_character"),
    ],
)  # fmt: skip
def test_a_document_that_can_not_be_learned_from_is_refused(document: object, code: str) -> None:
    [refusal] = atif.read(document)
    assert isinstance(refusal, InvalidTrajectory)
    assert refusal.code == code


@pytest.mark.parametrize("size", [7, 100_000])
def test_whole_files_lists_and_lines(size: int) -> None:
    for text in (
        json.dumps(TERMINUS, indent=2),
        json.dumps(TERMINUS),
        json.dumps([TERMINUS], indent=2),
        "\n" + json.dumps(TERMINUS, indent=2) + "\n\n",
    ):
        [draft] = drafts(read_file(text.encode(), "atif", size=size))
        assert len(draft.messages) == 5
    both = json.dumps(TERMINUS, indent=2) + json.dumps(REACT, indent=2)
    assert [n for n, _ in read_file(both.encode(), "atif", size=size)] == [1, 2]


def test_a_document_may_be_longer_than_one_trajectory() -> None:
    subagents = [{**REACT, "trajectory_id": str(n)} for n in range(20)]
    document = json.dumps({**REACT, "subagent_trajectories": subagents}).encode()
    limits = SizeLimits(3000, 100_000)
    assert len(document) > limits.trajectory_bytes
    assert len(drafts(read_file(document, "atif", limits=limits))) == 21
    long = json.dumps(changed(REACT, "steps", 3, "message", to="x" * 4000)).encode()
    [(_, refusal)] = read_file(long, "atif", limits=limits)
    assert isinstance(refusal, InvalidTrajectory)
    assert refusal.code == "trajectory_too_long"


PATHS: list[tuple[Any, ...]] = [
    ("agent",), ("steps",), ("extra",), ("subagent_trajectories",), ("agent", "tool_definitions"),
    ("steps", 2, "tool_calls"),
    ("steps", 1, "message"), ("steps", 2, "observation"), ("steps", 2, "observation", "results"), ("session_id",),
    ("steps", 2, "tool_calls", 0, "arguments"), ("steps", 2, "observation", "results", 0, "content"), ("notes",),
    ("steps", 2, "is_copied_context"), ("steps", 2, "llm_call_count"), ("extra", "memgen"), ("extra", "reward"),
]  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PATHS), anything)
def test_any_value_at_any_place_is_read_or_refused(path: tuple[Any, ...], value: object) -> None:
    try:
        found = list(atif.read(changed(REACT, *path, to=value)))
    except InvalidTrajectory as refusal:
        found = [refusal]
    assert found
    assert all(isinstance(each, Draft | InvalidTrajectory) for each in found)


def test_time_is_linear() -> None:
    began = time.monotonic()
    steps = [step(n + 1, "agent", "x", foo=1, bar=2) for n in range(5_000)]
    list(atif.read({**REACT, "steps": [step(1, "user", "x"), *({**s, "step_id": s["step_id"] + 1} for s in steps)]}))
    subagents = [{**REACT, "trajectory_id": str(n)} for n in range(1_000)]
    assert len(list(atif.read({**REACT, "subagent_trajectories": subagents}))) == 1_001
    calls = [call(f"c{n}") for n in range(5_000)]
    many = step(3, "agent", "", tool_calls=calls, observation=results(*[{"content": "x"}] * 10_000))
    list(atif.read({**REACT, "agent": AGENT, "steps": [*REACT["steps"][:2], many]}))  # type: ignore[index]  # a list
    with pytest.raises(InvalidTrajectory):
        list(atif.read({**REACT, "steps": [{}] * 20_000}))
    assert time.monotonic() - began < 10
