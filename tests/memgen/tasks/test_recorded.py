"""Replays of a hand-made record."""

import pytest

from memgen.errors import ConfigError
from memgen.tasks.recorded import RecordedConversation
from memgen.text.answers import Answer

RECORD = (
    {"role": "user", "content": "Play."},
    {"role": "assistant", "content": "OK", "weight": 0},
    {"role": "user", "content": "You see a door."},
    {"role": "assistant", "content": "Thought: it is shut.\nAction: open door"},
    {"role": "user", "content": "It is open."},
    {"role": "assistant", "content": "Action: go in"},
    {"role": "user", "content": "You win."},
)


def test_the_expert_earns_one() -> None:
    item = RecordedConversation("x", RECORD)
    assert item.max_turns == 2
    environment = item.open()
    assert environment.reset().messages == RECORD[:3]
    first = environment.step(Answer("THOUGHT: hm\nACTION:  Open  Door"))
    assert (first.messages, first.reward, first.done) == (RECORD[4:5], 0.5, False)
    last = environment.step(Answer("go in"))
    assert (last.messages, last.reward, last.done) == (RECORD[6:], 0.5, True)
    with pytest.raises(ConfigError, match="has ended"):
        environment.step(Answer("go in"))
    assert environment.reset().messages == RECORD[:3]
    environment.close()
    environment.close()


def test_another_action_ends_the_episode() -> None:
    environment = RecordedConversation("x", RECORD).open()
    environment.reset()
    assert environment.step(Answer("Action: open door")).reward == 0.5
    wrong = environment.step(Answer("Thought: go in\nAction: go out"))
    assert (wrong.messages, wrong.reward, wrong.done) == ((), 0.0, True)
    with pytest.raises(ConfigError, match="ended"):
        environment.step(Answer("Action: go in"))


def test_a_record_without_a_turn_to_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="'x' has no assistant turn to learn"):
        RecordedConversation("x", RECORD[:3])


def test_the_action_of_a_turn_that_calls_is_its_calls() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "go", "arguments": '{"to": "B"}'}}
    record = (RECORD[0], {"role": "assistant", "content": None, "tool_calls": [call]}, RECORD[2], RECORD[3])
    called = {"name": "go", "arguments": {"to": "B"}}
    for answer, reward in [
        (Answer(None, (called,)), 0.5),
        (Answer("I go.", (called,)), 0.5),
        (Answer(None), 0.0),
        (Answer(None, ({**called, "arguments": {}},)), 0.0),
        (Answer(None, ({**called, "name": "stay"},)), 0.0),
    ]:
        environment = RecordedConversation("x", record).open()
        environment.reset()
        assert environment.step(answer).reward == reward
        if reward:
            assert environment.step(Answer("Action: open door", (called,))).reward == 0.0
