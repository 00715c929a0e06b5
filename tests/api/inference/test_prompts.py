"""Prompts of chat requests: refused by what is shown of them, before more of it is read than shows their length."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.inference.prompts import read_prompt
from memgen.backbone.loading import Backbone
from memgen.errors import PromptTooLong
from memgen.text.probing import probe
from memgen.text.profile import BaseProfile
from tests.memgen.template_samples import CHATML_TOOLS, HERMES, chat_tokenizer

CONTEXT = 1000
LONG = 20_000


class Counted:
    """A tokenizer that counts the characters that it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self._tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def backbone(template: str) -> tuple[Backbone, Counted]:
    counted = Counted(chat_tokenizer(template))
    profile = probe(cast(Any, counted))
    counted.characters = 0
    return cast(Backbone, SimpleNamespace(profile=profile, tokenizer=counted, max_tokens=CONTEXT)), counted


def called(**function: Any) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", **function}}
    return [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]


def tools(**parameters: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", **parameters}}}]


ASK: list[dict[str, Any]] = [{"role": "user", "content": "q"}]
TOO_LONG: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "a call's name": (called(name="n " * LONG), None),
    "a custom call's name": ([{"role": "assistant", "tool_calls": [
        {"type": "custom", "custom": {"name": "n " * LONG}}]}], None),
    "numbers of a call": (called(arguments={"a": list(range(LONG))}), None),
    "nothing in a call": (called(arguments={"a": [[], {}, None] * LONG}), None),
    "nothing but a thought": ([{"role": "assistant", "content": f"<think>{'a b ' * LONG}</think>"}], None),
    "numbers of a tool": (ASK, tools(properties={"a": {"enum": list(range(LONG))}})),
    "nulls of a tool": (ASK, tools(properties={"a": {"enum": [None, True, []] * LONG}})),
}  # fmt: skip


@pytest.mark.parametrize("template", [CHATML_TOOLS, HERMES], ids=["spelled", "native"])
@pytest.mark.parametrize("name", TOO_LONG)
def test_what_can_not_fit_is_refused_before_it_is_read(name: str, template: str) -> None:
    base, counted = backbone(template)
    with pytest.raises(PromptTooLong):
        read_prompt(base, *TOO_LONG[name])
    assert counted.characters < 40 * CONTEXT


def test_what_no_model_is_shown_of_a_tool_is_not_counted() -> None:
    base, _ = backbone(CHATML_TOOLS)
    spelled = replace(base.profile.form, tools=False)
    shown = cast(BaseProfile, replace(base.profile, form=spelled))
    base = cast(Backbone, SimpleNamespace(profile=shown, tokenizer=base.tokenizer, max_tokens=CONTEXT))
    unread = {"$defs": {"B": {"enum": ["b" * LONG]}}}
    titled = tools(properties={"a": {"type": "string", "title": "A title. " * LONG}}, **unread)
    assert len(read_prompt(base, ASK, titled).token_ids) < CONTEXT
