"""reasoning-gym datasets as tasks."""

import pytest

from memgen.errors import ConfigError
from memgen.tasks.gym_scorer import GymScorer
from memgen.tasks.reasoning import Reasoning
from memgen.tasks.task import SingleTurn
from memgen.text.answers import Answer


def question(item: SingleTurn) -> str:
    return str(item.prompt[0]["content"])


def test_an_expert_earns_the_reward_and_a_wrong_answer_does_not() -> None:
    task = Reasoning("family_relationships")
    assert task.name == "reasoning-gym:family_relationships"
    for item in task.training_items(5):
        environment = item.open()
        assert environment.reset().messages == item.prompt
        expert = item.expert
        assert expert is not None
        seen = environment.step(Answer(expert[-1]["content"]))
        assert (seen.reward, seen.done) == (1.0, True)
        assert environment.step(Answer("nobody")).reward < 1.0


def test_sides_share_no_question_even_where_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(_: GymScorer, *, size: int, seed: int) -> list[dict[str, object]]:
        return [{"question": f"Say {(seed + n) * 7919 % 60}.", "answer": "ok"} for n in range(size)]

    monkeypatch.setattr(GymScorer, "entries", few)
    task = Reasoning("spell_backward")
    train, other, test = task.training_items(100), task.training_items(100, seed=1), task.held_out_items(100)
    assert {question(i) for i in train} == {question(i) for i in other}
    assert {question(i) for i in [*train, *test]} == {f"Say {n}." for n in range(60)}
    assert len({i.item_id for i in [*train, *test]}) == len(train) + len(test) == 60


def test_items_are_the_same_at_every_look() -> None:
    options = {"min_word_len": 3, "max_word_len": 5}
    task = Reasoning("spell_backward", options)
    held_out = [i.item_id for i in task.held_out_items(20)]
    assert [i.item_id for i in task.held_out_items(5)] == held_out[:5]
    assert [
        i.item_id for i in Reasoning("spell_backward", {"min_word_len": 3, "max_word_len": 5}).held_out_items(20)
    ] == (held_out)
    first, again, other = (
        [i.item_id for i in Reasoning(task.dataset, task.options).training_items(20, seed=s)] for s in (0, 0, 1)
    )
    assert first == again != other
    assert all(3 <= len(i.reference.message["content"]) <= 5 for i in task.training_items(20))


def test_a_dataset_that_gives_no_answer_has_no_expert() -> None:
    [item] = Reasoning("rush_hour").training_items(1)
    assert item.expert is None


def test_an_unknown_dataset_or_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no dataset 'spel'.*spell_backward"):
        Reasoning("spel")
    with pytest.raises(ConfigError, match="no dataset 'spell_backward' with the options .*colour"):
        Reasoning("spell_backward", {"colour": 1})
