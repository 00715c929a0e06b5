"""Chat templates in the manner of well-known families, each small, and a byte tokenizer that knows their tokens."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from tests.fixtures_model import CHATML

_HEAD = "{% if tools %}<|im_start|>system\nTools: {% for t in tools %}{{ t | tojson }}{% endfor %}"
_CALLS = (
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}\n{% endif %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}"
)
_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

HERMES = (
    _HEAD + "<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + _CALLS + "<|im_end|>\n{% endfor %}" + _ASK
)
"""It writes tools, calls and results itself."""
CHATML_TOOLS = _HEAD + "<|im_end|>\n{% endif %}" + CHATML
"""It lists tools and drops calls."""
MISTRAL_IDS = HERMES.replace(
    "{{ m.content }}",
    "{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}{{ raise_exception('id') }}{% endif %}{% endfor %}"
    "{% if m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}{{ raise_exception('id') }}{% endif %}"
    "{{ m.tool_call_id }}={% endif %}{{ m.content }}",
)
"""It wants ids of nine characters."""
ALTERNATING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
    "[{{ m.role }}]{{ m.content | trim }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""It takes users and assistants by turns, nothing else."""
THINKS_LAST = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" + _ASK
)
"""It writes a thought without words into the last answer."""
OPENS_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"""Its prompt opens a thought, which no answer in a history has."""


def chat_tokenizer(
    template: str, *, eos: str | None = "<|im_end|>", special: tuple[str, ...] = ()
) -> PreTrainedTokenizerBase:
    """A token a byte, the special ones of the template, and tags as tokens that are not special."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({token: n for n, token in enumerate(["<unk>", *alphabet])}, [], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    build: Any = PreTrainedTokenizerFast  # untyped in transformers
    written = [token for token in dict.fromkeys(re.findall(r"<[|｜][^|｜<>]+[|｜]>", template)) if token != eos]
    names = {"unk_token": "<unk>", **({"eos_token": eos} if eos else {})}
    tokenizer = build(tokenizer_object=inner, additional_special_tokens=[*written, *special], **names)
    tags = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
    tokenizer.add_tokens([tag for tag in tags if tag not in special])
    tokenizer.chat_template = template
    return tokenizer
