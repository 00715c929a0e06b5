"""Rendering conversations with tools."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from memgen.errors import ChatTemplateError
from memgen.text.chat import render_answer, render_prompt
from tests.fixtures_model import CHATML, save_tiny_tokenizer

ADD = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds", "parameters": ADD}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CALLED = [
    {"role": "user", "content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "1"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]


def _tokenizer(folder: Path, template: str) -> PreTrainedTokenizerBase:
    save_tiny_tokenizer(folder, template)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture
def plain(tmp_path: Path) -> PreTrainedTokenizerBase:
    return _tokenizer(tmp_path, CHATML)


def test_a_template_without_tools_has_them_spelled(plain: PreTrainedTokenizerBase) -> None:
    prompt = render_prompt(plain, CALLED[:3], TOOLS)
    line = '# Adds\n{"name": "add", "arguments": {"a": <integer>}}'
    assert prompt == (
        f"<|im_start|>system\nYou can call these functions:\n{line}<|im_end|>\n"
        "<|im_start|>user\n1+1<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>2</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_tools_join_the_system_message_that_is_there(plain: PreTrainedTokenizerBase) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "1+1"}]
    prompt = render_prompt(plain, messages, TOOLS)
    assert prompt.startswith("<|im_start|>system\nBe brief.\n\nYou can call these functions:\n# Adds\n{")
    assert prompt.count("<|im_start|>system") == 1


def test_a_template_with_tools_gets_them_as_objects(tmp_path: Path) -> None:
    template = (
        "{% if tools %}T:{{ tools[0].function.name }};{% endif %}"
        "{% for m in messages %}[{{ m.role }}:{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.a + 1 }}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>]{% endfor %}"
        "{% if add_generation_prompt %}[assistant:{% endif %}"
    )
    tokenizer = _tokenizer(tmp_path, template)
    prompt, answer = render_answer(tokenizer, CALLED[:2], TOOLS)
    assert (prompt, answer) == ("T:add;[user:1+1<|im_end|>][assistant:", "2<|im_end|>")


def test_the_answer_ends_with_its_end_of_turn(plain: PreTrainedTokenizerBase) -> None:
    prompt, answer = render_answer(plain, CALLED, TOOLS)
    assert prompt.endswith("<|im_start|>assistant\n")
    assert answer == "It is 2.<|im_end|>"


def test_a_template_that_rewrites_the_prompt_is_refused(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ChatTemplateError, match="can't be separated"):
        render_answer(tokenizer, CALLED, None)


def test_a_template_that_raises_is_refused(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, "{{ raise_exception('only user turns') }}")
    with pytest.raises(ChatTemplateError, match="only user turns"):
        render_prompt(tokenizer, CALLED, None)
