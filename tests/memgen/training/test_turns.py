"""Supervised turns: which are learned from, and that a long conversation costs no more than it has to."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from memgen.backbone.loading import Backbone
from memgen.training import turns
from memgen.training.examples import build_examples
from memgen.training.reward.recorded_groups import groups_of_trajectories
from memgen.training.turns import LeftOut, supervised_turns

Rendered = list[int]


@pytest.fixture
def tokenizer(backbone: Backbone) -> PreTrainedTokenizerBase:
    return backbone.tokenizer


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Rendered:
    """Messages of each conversation that is rendered."""
    seen: Rendered = []
    turn = turns._turn

    def noted(tokenizer: Any, messages: Any, tools: Any) -> Any:
        seen.append(len(messages))
        return turn(tokenizer, messages, tools)

    monkeypatch.setattr(turns, "_turn", noted)
    return seen


def talk(count: int, **assistant: Any) -> list[dict[str, Any]]:
    pair = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **assistant}]
    return pair * count


def test_turns_are_counted_with_those_of_no_weight(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [*talk(1, weight=0), *talk(2)]
    found = LeftOut(10_000)
    assert [turn.ordinal for turn in supervised_turns(tokenizer, messages, None, found)] == [1, 2]
    assert (found.long, found.weight) == (0, 1)


@pytest.mark.parametrize("build", ["examples", "groups"])
def test_no_turn_is_rendered_behind_one_that_is_too_long(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, build: str
) -> None:
    """153 kB of very many short turns took 75 seconds."""
    work = []
    for count in (30, 3000):
        rendered.clear()
        line = {"messages": [*talk(count), *talk(1, weight=0)], "reward": 1.0}
        if build == "examples":
            found: Any = build_examples(tokenizer, [line], max_tokens=500)
        else:
            found = groups_of_trajectories(tokenizer, [line], max_tokens=500)
        work.append(sum(rendered))
        assert found.skipped_weight == 1
        assert found.skipped_long > 0.2 * count
        assert found.flags
    assert work[0] == work[1], "a hundred times as long, and not a message more is read"


def test_what_follows_thoughts_that_are_dropped_is_not_lost(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some templates show thoughts only until the user speaks again, so that a later prompt may be shorter."""
    lengths = {2: 10, 4: 600, 6: 700, 8: 30, 10: 600, 12: 40, 14: 800, 16: 900}

    def turn(tokenizer: Any, messages: Any, tools: Any) -> Any:
        rendered.append(len(messages))
        return (0,) * lengths[len(messages)], (1,)

    monkeypatch.setattr(turns, "_turn", turn)
    user, tool, said = ({"role": role, "content": "x"} for role in ("user", "tool", "assistant"))
    messages = [user, said, tool, said, tool, said, user, said, tool, said, user, said, user, said, user, said]
    found = LeftOut(500)
    kept = [turn.ordinal for turn in supervised_turns(None, messages, None, found)]  # type: ignore[arg-type]
    assert kept == [0, 3, 5]
    assert found.long == 5
    assert rendered == [2, 4, 8, 10, 12, 14], "a longer prompt behind a user's message is the end"


@pytest.mark.parametrize(("long", "kept", "flagged"), [(0, 10, False), (2, 8, False), (3, 7, True), (23, 6, True)])
def test_beyond_a_share_it_is_a_flag(long: int, kept: int, flagged: bool) -> None:
    found = LeftOut(1024, long=long)
    assert bool(found.flags(kept)) is flagged
    assert found.in_words(kept).startswith(f"{long} of {long + kept} turns were not learned") is bool(long)


def test_trained_on_too_little_is_in_the_report(backbone: Backbone) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a" * n}]} for n in (5, 900)
    ]
    data = build_examples(backbone.tokenizer, lines, max_tokens=500)
    assert (len(data.examples), data.skipped_long) == (1, 1)
    assert data.flags == (data.too_long,)
