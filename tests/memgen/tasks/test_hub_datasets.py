"""The paper's sets from small local files in their real column layouts, loaded through `datasets`."""

import builtins
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from memgen.errors import ConfigError, ModelNotFound
from memgen.tasks.hub_datasets import alfworld, gpqa, gsm8k, kodcode, trivia_qa
from memgen.tasks.recorded import RecordedConversation
from memgen.tasks.row_task import RowTask
from memgen.tasks.task import SingleTurn, TaskItem
from memgen.text.answers import Answer, message_text

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def _write(folder: Path, split: str, rows: Sequence[dict[str, Any]], *, parquet: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    if parquet:
        datasets.Dataset.from_list(list(rows)).to_parquet(folder / f"{split}.parquet")
    else:
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _reward(item: TaskItem, text: str) -> float:
    environment = item.open()
    environment.reset()
    return environment.step(Answer(text)).reward


def _expert_text(item: TaskItem) -> str:
    assert item.expert is not None
    return message_text(item.expert[-1])


def _both(task: RowTask) -> list[TaskItem]:
    training, held_out = task.training_items(1000), task.held_out_items(1000)
    assert {i.item_id for i in training}.isdisjoint(i.item_id for i in held_out)
    return [*training, *held_out]


NATALIA = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72 clips.\n#### 72",
}


@pytest.mark.parametrize("parquet", [False, True])
def test_gsm8k(tmp_path: Path, parquet: bool) -> None:
    test = {"question": "Each of 1,000 boxes holds 2 pens. How many pens?", "answer": "1,000*2\n#### 2,000"}
    _write(tmp_path / "set", "train", [NATALIA, test], parquet=parquet)
    _write(tmp_path / "set", "test", [test], parquet=parquet)
    task = gsm8k(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    (item,) = task.training_items(10)
    assert _expert_text(item) == "She sold 48/2 = 24 clips in May.\nIn all 48+24 = 72 clips.\n#### 72"
    assert _reward(item, _expert_text(item)) == 1.0
    assert _reward(item, "That makes #### 72.0, from 2 months") == 1.0
    assert _reward(item, "72 divided by 24 is 3") == 0.0
    (held_out,) = task.held_out_items(10)
    assert _reward(held_out, "2000") == 1.0
    assert message_text(cast(SingleTurn, held_out).prompt[0]).startswith(test["question"])


def _kodcode_row(number: int) -> dict[str, Any]:
    return {
        "version": "v1.0",
        "style": "instruct",
        "subset": "Prefill",
        "question_id": f"Prefill_{number}_I",
        "question": f"Write a function that adds {number} to a number.",
        "solution": f"def plus(x):\n    return x + {number}",
        "test": f"from solution import plus\n\ndef test_plus():\n    assert plus(2) == {number + 2}\n",
        "test_info": [
            {
                "docstring": "Adds.",
                "function_declaration": "def plus(x):",
                "function_name": "plus",
                "parameter_list": "(x)",
            }
        ],
        "gpt_pass_sequence": [1, 1],
        "gpt_difficulty": "easy",
    }


def test_kodcode(tmp_path: Path) -> None:
    _write(tmp_path / "set", "train", [_kodcode_row(number) for number in range(20)], parquet=True)
    task = kodcode(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    assert len(_both(task)) == 20
    assert 0 < len(task.held_out_items(20)) < 10
    item = task.training_items(1)[0]
    assert "Define `def plus(x):`" in message_text(cast(SingleTurn, item).prompt[0])
    assert _reward(item, _expert_text(item)) == 1.0
    assert _reward(item, "```python\ndef plus(x):\n    return x - 1\n```") == 0.0
    assert _reward(item, "```python\nraise SystemExit(0)\n```") == 0.0


def _trivia_row(question: str, value: str, aliases: list[str]) -> dict[str, Any]:
    return {
        "question": question,
        "question_id": f"tc_{len(question)}",
        "question_source": "http://example.org/",
        "answer": {
            "aliases": aliases,
            "normalized_aliases": [alias.lower() for alias in aliases],
            "matched_wiki_entity_name": "",
            "normalized_matched_wiki_entity_name": "",
            "normalized_value": value.lower(),
            "type": "WikipediaEntity",
            "value": value,
        },
    }


def test_trivia_qa(tmp_path: Path) -> None:
    boulevard = _trivia_row("Which street in a musical?", "Sunset Boulevard", ["Sunset Blvd", "Sunset Bulevard"])
    capital = _trivia_row("Capital of France?", "Paris", ["City of Light"])
    _write(tmp_path / "set", "train", [boulevard], parquet=True)
    _write(tmp_path / "set", "validation", [capital], parquet=True)
    task = trivia_qa(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    (item,), (held_out,) = task.training_items(5), task.held_out_items(5)
    assert _expert_text(item) == "Sunset Boulevard"
    assert [_reward(item, text) for text in ("Sunset Boulevard", "sunset blvd.", "Sunset", "")] == [1.0, 1.0, 0.0, 0.0]
    assert _reward(held_out, "the City of Light") == 1.0


def _gpqa_row(number: int) -> dict[str, Any]:
    return {
        "Record ID": f"rec{number}",
        "Question": f"What is the spin of particle {number}?\n",
        "Correct Answer": "one half",
        "Incorrect Answer 1": "zero ",
        "Incorrect Answer 2": "one",
        "Incorrect Answer 3": "two",
        "Explanation": "Option (A) by definition.",
        "High-level domain": "Physics",
        "Subdomain": "Particle physics",
    }


def test_gpqa(tmp_path: Path) -> None:
    _write(tmp_path / "set", "train", [_gpqa_row(number) for number in range(30)])
    task = gpqa(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    items = _both(task)
    assert len(items) == 30
    letters = set()
    for item in items:
        metadata = cast(SingleTurn, item).reference.metadata
        right = "ABCD"[metadata["choices"].index("one half")]
        letters.add(right)
        assert _expert_text(item) == f"The answer is ({right})"
        assert f"({right}) one half" in message_text(cast(SingleTurn, item).prompt[0])
        assert [_reward(item, f"I see.\nThe answer is ({letter})") for letter in "ABCD"] == [
            float(letter == right) for letter in "ABCD"
        ]
        assert _reward(item, "It is one half") == 1.0
        assert _reward(item, "It is zero") == 0.0
    assert letters == set("ABCD"), "the right choice has to move"
    again = gpqa(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    assert [_expert_text(item) for item in again.held_out_items(9)] == [
        _expert_text(item) for item in task.held_out_items(9)
    ]


def _alfworld_row(number: int) -> dict[str, Any]:
    says = [
        ("human", "Interact with a household.", None),
        ("gpt", "OK", False),
        ("human", f"You are in a room with drawer {number}. Your task is to: open it.", None),
        ("gpt", f"THOUGHT: It is shut.\nACTION: open drawer {number}", True),
        ("human", f"You open drawer {number}.", None),
        ("gpt", "THOUGHT: I am done.\nACTION: look", True),
        ("human", "You see a pen.", None),
    ]
    conversations = [{"from": who, "loss": loss, "value": text} for who, text, loss in says]
    return {"conversations": conversations, "id": f"alfworld_{number}"}


def test_alfworld(tmp_path: Path) -> None:
    # As AgentInstruct lays it out: one domain a split, named in the README.
    _write(tmp_path / "set", "alfworld-00000-of-00001", [_alfworld_row(number) for number in range(20)], parquet=True)
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: alfworld\n    path: alfworld-*\n---\n"
    )
    task = alfworld(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    assert len(_both(task)) == 20
    item = cast(RecordedConversation, task.training_items(1)[0])
    number = item.item_id.removeprefix("alfworld_")
    assert item.max_turns == 2
    assert item.expert[1] == {"role": "assistant", "content": "OK", "weight": 0}
    assert [message["role"] for message in item.expert] == ["user", "assistant"] * 3 + ["user"]
    environment = item.open()
    assert len(environment.reset().messages) == 3
    first = environment.step(Answer(f"ACTION: open drawer {number}"))
    assert message_text(first.messages[0]) == f"You open drawer {number}."
    assert environment.step(Answer("ACTION: look")).done
    assert _reward(item, "ACTION: look") == 0.0


def test_a_folder_with_configurations_is_asked_for_the_right_one(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for config, answer in (("main", "#### 1"), ("socratic", "#### 2")):
        (folder / config).mkdir(parents=True)
        for split in ("train", "test"):
            row = {"question": f"{split}?", "answer": answer}
            (folder / config / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {config}\n  data_files:\n"
            f"  - split: train\n    path: {config}/train.jsonl\n  - split: test\n    path: {config}/test.jsonl\n"
            for config in ("main", "socratic")
        )
        + "---\n"
    )
    for config, answer in (("main", "#### 1"), ("socratic", "#### 2")):
        task = gsm8k(str(folder), config=config, cache_dir=tmp_path / "cache")
        assert [_expert_text(item) for item in _both(task)] == [answer, answer]


def test_what_is_wrong_with_a_source_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    _write(tmp_path / "half", "train", [NATALIA])
    for split in ("train", "test"):
        _write(tmp_path / "set", split, [{"question": "q", "reply": "a"}])
    with pytest.raises(ModelNotFound, match=r"split 'test' of dataset .* can't be loaded"):
        gsm8k(str(tmp_path / "half"), cache_dir=cache)
    with pytest.raises(ModelNotFound, match="nowhere"):
        gsm8k(str(tmp_path / "nowhere"), cache_dir=cache)
    with pytest.raises(ConfigError, match=r"has the columns \['question', 'reply'\]; expected also \['answer'\]"):
        gsm8k(str(tmp_path / "set"), cache_dir=cache)

    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelNotFound, match=r"pip install 'memgen-service\[hub\]'"):
        gsm8k(str(tmp_path / "set"), cache_dir=cache)
