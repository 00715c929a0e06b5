"""A model reads the keys of tools in the order in which they were sent: when asked, when trained, when judged."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from memgen.text.probing import probe
from registry.database import transaction
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.tasks import get_task
from tests.fixtures_model import CHATML, save_tiny_tokenizer
from tests.registry.conftest import Rows

NATIVE = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + CHATML
TOOLS = [
    {
        "type": "function",
        "function": {
            "strict": True,
            "name": "go",
            "parameters": {
                "type": "object",
                "required": ["zeta", "a"],
                "properties": {
                    "zeta": {"type": "string", "description": "last"},
                    "longer_name": {"anyOf": [{"type": "null"}, {"enum": ["b", "a"]}]},
                    "a": {"description": "first", "type": "object", "properties": {"y": {}, "x": {}}},
                },
            },
            "description": "Go",
        },
    }
]


def conversation(number: int) -> dict[str, Any]:
    past = {
        "id": "c",
        "type": "function",
        "function": {"name": "go", "arguments": {"zeta": "x", "a": {"y": 1, "x": 2}}},
    }
    messages = [
        {"role": "user", "content": f"hi {number}"},
        {"role": "assistant", "weight": 0, "content": None, "tool_calls": [past]},
        {"content": "gone", "tool_call_id": "c", "role": "tool"},
        {"role": "assistant", "content": "yes"},
    ]
    return {"messages": messages, "tools": TOOLS}


@pytest.mark.parametrize("template", [CHATML, NATIVE])
def test_one_order_for_asking_training_and_judging(rows: Rows, tmp_path: Path, template: str) -> None:
    save_tiny_tokenizer(tmp_path, template)
    profile = probe(AutoTokenizer.from_pretrained(tmp_path, local_files_only=True))

    def prompt(messages: list[Any], tools: list[Any] | None) -> tuple[int, ...]:
        return profile.prompt_ids(messages[:-1], tools)

    sent = [conversation(number) for number in range(40)]
    asked = {prompt(each["messages"], each["tools"]) for each in sent}
    rows.task("a", sent)
    with transaction(rows.services.sessions) as session:
        lines = [json.loads(line) for line in rows.snapshot(session, "a").jsonl.decode().split("\n") if line]
        suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
        assert suite is not None
        judged = {prompt(row.messages, row.tools) for row in suite_trajectories(session, suite.id)}
    learned = {prompt(line["messages"], line["tools"]) for line in lines}
    assert (learned | judged, len(learned), len(judged)) == (asked, len(lines), suite.items)
    assert json.dumps(lines[0]["tools"]) == json.dumps(TOOLS)
