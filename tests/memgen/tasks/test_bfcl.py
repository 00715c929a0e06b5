"""BFCL's single calls as a task."""

import json

import pytest

from memgen.errors import ConfigError
from memgen.tasks.bfcl import CATEGORIES, bfcl
from memgen.tasks.task import TaskItem
from memgen.text.answers import Answer, message_calls


def question(item: TaskItem) -> str:
    return json.dumps([m["content"] for m in item.expert if m["role"] == "user"])


def test_experts_earn_the_reward_and_the_sides_share_no_question() -> None:
    task = bfcl()
    train, test = task.training_items(10_000), task.held_out_items(10_000)
    assert len(train) > 1200
    assert 300 < len(test) < 500
    questions = [
        {json.dumps([m["content"] for m in i.expert if m["role"] == "user"]) for i in side} for side in (train, test)
    ]
    assert questions[0].isdisjoint(questions[1])
    assert len({item.item_id for item in [*train, *test]}) == len(train) + len(test)
    for item in test:
        call = message_calls(item.expert[-1])[0]
        assert item.open().step(Answer(None, (call,))).reward == 1.0
        assert item.open().step(Answer(None, ({**call, "name": "other"},))).reward == 0.0
        assert item.tools


def test_the_order_depends_on_the_seed_in_training_only() -> None:
    task = bfcl(categories=("simple_python",))
    assert [i.item_id for i in task.training_items(9, seed=1)] != [i.item_id for i in task.training_items(9, seed=2)]
    assert (
        task.training_items(9, seed=1)[0].item_id
        == bfcl(categories=["simple_python"]).training_items(9, seed=1)[0].item_id
    )
    assert [i.item_id for i in task.held_out_items(3)] == [i.item_id for i in task.held_out_items(30)][:3]


def test_the_first_held_out_items_are_of_all_categories() -> None:
    ids = [item.item_id for item in bfcl().held_out_items(60)]
    assert all(any(i.startswith(f"bfcl-{category}_") for i in ids) for category in CATEGORIES)


def test_long_items_can_be_left_out_without_moving_others() -> None:
    short = bfcl(max_characters=900)
    ids = {i.item_id for i in short.held_out_items(10_000)}
    assert 0 < len(ids) < len(bfcl().held_out_items(10_000))
    assert ids < {i.item_id for i in bfcl().held_out_items(10_000)}
    assert all(len(json.dumps([list(i.expert[:-1]), i.tools])) <= 900 for i in short.held_out_items(10_000))


@pytest.mark.parametrize("categories", [(), ("simple", CATEGORIES[0])])
def test_unknown_categories_are_refused(categories: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected some of simple_python"):
        bfcl(categories=categories)
