"""The examples of docs/tasks.md, run as a reader would."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from memgen.evaluation.episodes import score_task
from memgen.memory.host import AdapterHost
from memgen.tasks.catalogue import BUILT_IN, make_task
from memgen.tasks.graders import grader_kinds
from memgen.tasks.task import Task
from memgen.text.answers import Answer
from tests.memgen.conftest import CONFIG

PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in BLOCKS:
        if named := re.match(r'"""(my_\w+\.py):', block):
            (tmp_path / named.group(1)).write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


def earned_by_the_expert(task: Task) -> float:
    item = task.training_items(7, seed=3)[-1]
    assert item.expert is not None
    environment, earned = item.open(), 0.0
    environment.reset()
    for message in item.expert:
        if message["role"] == "assistant":
            seen = environment.step(Answer(message["content"]))
            earned += seen.reward
    assert seen.done
    environment.close()
    return earned


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(("name", "options"), [("my_tasks:Sums", {"largest": 50}), ("my_games:Guessing", {})])
def test_a_task_in_one_file(name: str, options: dict[str, Any], host: AdapterHost) -> None:
    task = make_task(name, **options)
    train, test = task.training_items(10_000), task.held_out_items(10_000)
    assert {item.item_id for item in train}.isdisjoint(item.item_id for item in test)
    assert earned_by_the_expert(task) == 1.0
    scored = score_task(host, None, test[:3], max_new_tokens=task.max_new_tokens)
    assert len(scored.suite.items) == 3
    assert [len(e.turns) for e in scored.episodes] == [test[0].max_turns] * 3 or scored.suite.score > 0


@pytest.mark.usefixtures("modules")
def test_the_other_snippets_run(host: AdapterHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny base, and with fewer steps."""
    monkeypatch.chdir(tmp_path)
    memory = host.create("my-memory", CONFIG)
    make, train, write, score = (block for block in BLOCKS if not block.startswith('"""'))
    names: dict[str, Any] = {"host": host}
    exec(make, names)
    assert (len(names["train"]), len(names["test"])) == (500, 200)
    before = [parameter.detach().clone() for parameter in memory.weaver_parameters()]
    exec(make + train.replace("steps=60", "steps=2").replace("GrpoConfig(", "GrpoConfig(steps=1, "), names)
    assert any(not old.equal(new) for old, new in zip(before, memory.weaver_parameters(), strict=True))
    exec(write, names)
    lines = [json.loads(line) for line in Path("sums.jsonl").read_text().splitlines()]
    assert len(lines) == 600
    assert [message["role"] for message in lines[0]["messages"]] == ["user", "assistant"]
    exec(score, names)
    assert len(names["scored"].episodes) == 20


def test_every_grader_is_in_its_table() -> None:
    assert set(grader_kinds()) <= set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))


def test_every_built_in_task_is_in_the_table() -> None:
    listed = {name.partition(":")[0] for name in re.findall(r"^\| `([\w-]+(?::<dataset>)?)` \|", PAGE, re.MULTILINE)}
    assert set(BUILT_IN) <= listed
