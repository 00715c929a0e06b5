"""Supervised turns: which are learned from, and that a long conversation costs no more than it has to."""

from typing import Any

import pytest

from memgen.backbone.loading import Backbone
from memgen.errors import ChatTemplateError
from memgen.text.profile import BaseProfile
from memgen.training.examples import build_examples
from memgen.training.reward.recorded_groups import groups_of_trajectories
from memgen.training.turns import LeftOut, supervised_turns

Rendered = list[int]


@pytest.fixture
def profile(backbone: Backbone) -> BaseProfile:
    return backbone.profile


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Rendered:
    """Messages of each conversation that is rendered."""
    seen: Rendered = []
    turn_ids = BaseProfile.turn_ids

    def noted(profile: BaseProfile, messages: Any, tools: Any = None) -> Any:
        seen.append(len(messages))
        return turn_ids(profile, messages, tools)

    monkeypatch.setattr(BaseProfile, "turn_ids", noted)
    return seen


def talk(count: int, **assistant: Any) -> list[dict[str, Any]]:
    pair = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **assistant}]
    return pair * count


def test_turns_are_counted_with_those_of_no_weight(profile: BaseProfile) -> None:
    messages = [*talk(1, weight=0), *talk(2)]
    found = LeftOut(10_000)
    assert [turn.ordinal for turn in supervised_turns(profile, messages, None, found)] == [1, 2]
    assert (found.long, found.weight) == (0, 1)


@pytest.mark.parametrize("build", ["examples", "groups"])
def test_no_turn_is_rendered_behind_one_that_is_too_long(profile: BaseProfile, rendered: Rendered, build: str) -> None:
    """153 kB of very many short turns took 75 seconds."""
    work = []
    for count in (30, 3000):
        rendered.clear()
        line = {"messages": [*talk(count), *talk(1, weight=0)], "reward": 1.0}
        if build == "examples":
            found: Any = build_examples(profile, [line], max_tokens=500)
        else:
            found = groups_of_trajectories(profile, [line], max_tokens=500)
        work.append(sum(rendered))
        assert found.skipped_weight == 1
        assert found.skipped_long > 0.2 * count
        assert found.flags
    assert work[0] == work[1], "a hundred times as long, and not a message more is read"


@pytest.mark.parametrize(("long", "kept", "flagged"), [(0, 10, False), (2, 8, False), (3, 7, True), (23, 6, True)])
def test_beyond_a_share_it_is_a_flag(long: int, kept: int, flagged: bool) -> None:
    found = LeftOut(1024, long=long)
    assert bool(found.flags(kept)) is flagged
    assert found.in_words(kept).startswith(f"{long} of {long + kept} turns were not learned") is bool(long)


def test_trained_on_too_little_is_in_the_report(backbone: Backbone) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a" * n}]} for n in (5, 900)
    ]
    data = build_examples(backbone.profile, lines, max_tokens=500)
    assert (len(data.examples), data.skipped_long) == (1, 1)
    assert data.flags == (data.too_long,)


def test_a_conversation_that_the_template_refuses_is_left_out_alone(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_ids = BaseProfile.turn_ids

    def picky(profile: BaseProfile, messages: Any, tools: Any = None) -> Any:
        if messages[0]["content"] == "odd":
            raise ChatTemplateError("no odd ones")
        return turn_ids(profile, messages, tools)

    monkeypatch.setattr(BaseProfile, "turn_ids", picky)
    odd = [{"role": "user", "content": "odd"}, {"role": "assistant", "content": "a"}]
    lines = [{"messages": odd}, *({"messages": talk(1)} for _ in range(3))]
    data = build_examples(backbone.profile, lines, max_tokens=500)
    assert len(data.examples) == 3
    assert data.flags == ("1 of 4 turns were not learned: the base's chat template refuses them",)
