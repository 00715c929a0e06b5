"""Chat templates by what they can and what they do, each small and of our own writing, in the manners of real ones."""

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.memgen.template_samples import chat_tokenizer

_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def _chatml(body: str = "{{ m.content }}", *, head: str = "", guard: str = "", ask: str = _ASK) -> str:
    """ChatML whose turns say `body`, behind `head`, with `guard` in front of each message."""
    turn = f"<|im_start|>{{{{ m.role }}}}\n{body}<|im_end|>\n"
    return head + "{% for m in messages %}" + guard + turn + "{% endfor %}" + ask


_JSON_LIST = (
    "{% if tools %}<|im_start|>system\nTools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
)
_CALLS = (
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}\n{% endif %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
)
_SAID_AND_CALLED = "{{ m.content or '' }}" + _CALLS


@dataclass(frozen=True)
class Sample:
    template: str
    expected: dict[str, object]
    """Fields of the profile's summary, or `refused`: words of the reason."""
    bos: str | None = None
    eos: str | None = "<|im_end|>"
    special: tuple[str, ...] = ()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        special = tuple(token for token in self.special if token != self.eos)
        made = chat_tokenizer(self.template, eos=self.eos, special=special)
        if self.bos:
            made.add_special_tokens({"bos_token": self.bos})
        return made


_SPELLED: dict[str, object] = {"tools": "spelled", "calls": "spelled"}
_NATIVE: dict[str, object] = {"tools": "native", "calls": "native"}
_LISTED: dict[str, object] = {"tools": "native", "calls": "spelled"}
_INST = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "</s>")
_TURNS = ("<start_of_turn>", "<end_of_turn>", "<eos>")

_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('by turns') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_ZEPHYR = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\n' + m.content + eos_token + '\n' }}"
    "{% elif m.role == 'system' %}{{ '<|system|>\n' + m.content + eos_token + '\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'user' %}{% if tools and loop.last %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}"
    "[INST]{{ m.content }}[/INST]{% elif m.role == 'assistant' and m.tool_calls %}[TOOL_CALLS][{% for c in "
    "m.tool_calls %}{% if c.id | length != 9 or not c.id.isalnum() %}{{ raise_exception('id') }}{% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}{% elif m.role == 'assistant' %}{{ m.content }}"
    "{{ eos_token }}{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% endif %}{% endfor %}"
)
_LLAMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\n{{ system | trim }}{% if tools %}{{ tools | tojson }}{% endif %}"
    "<|eot_id|>{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call') }}{% endif %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "<|eot_id|>{% else %}<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"
    "<｜User｜>{{ m.content }}{% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content.split('</think>') | last }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
_QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' and not "
    "m.content.startswith('<tool_response>') %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    + _JSON_LIST
    + "{% for m in messages %}{% set said = m.content or '' %}{% set thought = '' %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ said }}\n</tool_response><|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{% if loop.index0 > ns.last and (loop.last or thought) %}"
    "<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ said }}" + _CALLS + "<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ said }}<|im_end|>\n{% endif %}{% endfor %}"
    + _ASK[: -len("{% endif %}")]
    + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

SAMPLES: dict[str, Sample] = {
    # No tools.
    "chatml": Sample(_chatml(), _SPELLED | {"system": "system", "neighbours": "kept"}),
    "zephyr": Sample(_ZEPHYR, _SPELLED | {"answer_end": "</s>"}, eos="</s>"),
    "gemma": Sample(
        _GEMMA,
        _SPELLED | {"system": "user", "neighbours": "joined", "answer_end": "<end_of_turn>"},
        bos="<bos>",
        eos="<eos>",
        special=_TURNS,
    ),
    # Tools, but no calls.
    "lists json, drops calls": Sample(_chatml(head=_JSON_LIST), {"calls": "spelled"}),
    "lists json, refuses calls": Sample(
        _chatml(head=_JSON_LIST, guard="{% if m.tool_calls %}{{ raise_exception('no calls') }}{% endif %}"),
        {"calls": "spelled"},
    ),
    "names only": Sample(
        _chatml(head="{% if tools %}{% for t in tools %}{{ t.function.name }}{% endfor %}{% endif %}"), _SPELLED
    ),
    # Calls as JSON.
    "hermes": Sample(_chatml(_SAID_AND_CALLED, head=_JSON_LIST), _NATIVE | {"arguments": "object"}),
    "hermes on one line": Sample(
        _chatml(
            "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>"
            "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}</tool_call>{% endfor %}",
            head=_JSON_LIST,
        ),
        _NATIVE,
    ),
    "json without a tag": Sample(_LLAMA, {"calls": "spelled"}, bos="<|begin|>", eos="<|eot_id|>"),
    "a list of json": Sample(_MISTRAL, {"calls": "spelled"}, bos="<s>", eos="</s>", special=_INST),
    # Calls as XML.
    "xml of parameters": Sample(
        _chatml(
            "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\n<function={{ c.function.name }}>"
            "{% for k, v in c.function.arguments.items() %}\n<parameter={{ k }}>\n{{ v }}\n</parameter>{% endfor %}"
            "\n</function>\n</tool_call>{% endfor %}",
            head=_JSON_LIST,
        ),
        {"calls": "spelled"},
    ),
    "xml of keys and values": Sample(
        _chatml(
            "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}{% for k, v in "
            "c.function.arguments.items() %}\n<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v | tojson }}</arg_value>"
            "{% endfor %}</tool_call>{% endfor %}",
            head=_JSON_LIST,
        ),
        {"calls": "spelled"},
    ),
    # Calls as Python.
    "python": Sample(
        _chatml(
            "{{ m.content }}{% if m.tool_calls %}[{% for c in m.tool_calls %}{{ c.function.name }}({% for k, v in "
            "c.function.arguments.items() %}{{ k }}={{ v | tojson }}{% endfor %}){% endfor %}]{% endif %}",
            head=_JSON_LIST,
        ),
        {"calls": "spelled"},
    ),
    "python between tokens": Sample(
        _chatml(
            "{{ m.content }}{% for c in m.tool_calls or [] %}<|call|>{{ c.function.name }}(**"
            "{{ c.function.arguments }})<|/call|>{% endfor %}",
            head=_JSON_LIST,
        ),
        {"calls": "spelled"},
    ),
    # Ids.
    "ids of nine letters and digits": Sample(
        _chatml(
            _SAID_AND_CALLED,
            head=_JSON_LIST,
            guard="{% for c in m.tool_calls or [] %}{% if c.id | length != 9 or not c.id.isalnum() %}"
            "{{ raise_exception('id') }}{% endif %}{% endfor %}{% if m.role == 'tool' and "
            "(m.tool_call_id | length != 9 or not m.tool_call_id.isalnum()) %}{{ raise_exception('id') }}{% endif %}",
        ),
        _NATIVE,
    ),
    "ids that are shown": Sample(
        _chatml("{% if m.role == 'tool' %}{{ m.tool_call_id }}: {% endif %}" + _SAID_AND_CALLED, head=_JSON_LIST),
        _NATIVE,
    ),
    "names of results": Sample(
        _chatml(
            "{% if m.role == 'tool' %}{{ m.name | upper }}: {% endif %}" + _SAID_AND_CALLED,
            head=_JSON_LIST,
            guard="{% if m.role == 'tool' and not m.name %}{{ raise_exception('which tool?') }}{% endif %}",
        ),
        _NATIVE,
    ),
    # Arguments as text.
    "arguments are text": Sample(
        _chatml(
            _SAID_AND_CALLED.replace("arguments | tojson", "arguments"),
            head=_JSON_LIST,
            guard="{% for c in m.tool_calls or [] %}{% if c.function.arguments is not string %}"
            "{{ raise_exception('text, please') }}{% endif %}{% endfor %}",
        ),
        _NATIVE | {"arguments": "text"},
    ),
    "arguments are added to text": Sample(
        _chatml(_SAID_AND_CALLED.replace("arguments | tojson", "arguments + ''"), head=_JSON_LIST),
        _NATIVE | {"arguments": "text"},
    ),
    # No system.
    "system raises": Sample(
        _chatml(guard="{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"), {"system": "user"}
    ),
    "system is dropped": Sample(
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        + _ASK,
        {"system": "user"},
    ),
    "system first only": Sample(
        _chatml(guard="{% if m.role == 'system' and not loop.first %}{{ raise_exception('first') }}{% endif %}"),
        {"system": "system", "later_system": "user"},
    ),
    # Turns.
    "strict turns with a system": Sample(
        _chatml(
            head="{% set start = 1 if messages[0].role == 'system' else 0 %}",
            guard="{% if loop.index0 >= start and (m.role == 'user') != ((loop.index0 - start) % 2 == 0) %}"
            "{{ raise_exception('by turns') }}{% endif %}",
        ),
        {"system": "system", "neighbours": "joined"},
    ),
    "no role twice": Sample(
        _chatml(
            guard="{% if not loop.first and m.role == messages[loop.index0 - 1].role %}{{ raise_exception('twice') }}"
            "{% endif %}"
        ),
        {"neighbours": "joined"},
    ),
    "neighbours are lost": Sample(
        _chatml()
        .replace(
            "{% for m in messages %}",
            "{% for m in messages %}{% if loop.last or m.role != messages[loop.index0 + 1].role %}",
        )
        .replace("<|im_end|>\n{% endfor %}", "<|im_end|>\n{% endif %}{% endfor %}"),
        {"neighbours": "joined"},
    ),
    # Thoughts.
    "thinks in the last answer": Sample(
        _chatml(
            "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
            "{{ m.content.split('</think>')[-1] }}"
        ),
        {"thought": "written"},
    ),
    "qwen3": Sample(_QWEN3, _NATIVE | {"thought": "written"}),
    "opens a thought": Sample(_R1, {"thought": "not_opened"}, bos="<｜begin｜>", eos="<｜end｜>"),
    "opens a thought behind a line": Sample(
        _chatml(ask="{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"),
        {"thought": "not_opened"},
    ),
    # The date.
    "date by the clock": Sample(_chatml(head="Today: {{ strftime_now('%d %b %Y') }}\n"), {"writes_date": True}),
    "date by a variable": Sample(
        _chatml(
            head="{% if date_string is not defined %}{% if strftime_now is defined %}{% set date_string = "
            "strftime_now('%Y-%m-%d') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
            "Today: {{ date_string }}\n"
        ),
        {"writes_date": True},
    ),
    "a date of its own": Sample(_chatml(head="Cutting Knowledge Date: December 2023\n"), {"writes_date": False}),
    # Ends.
    "the end is not eos": Sample(_chatml(), {"answer_end": "<|im_end|>"}, eos="<|endoftext|>"),
    "the end is a turn's": Sample(_LLAMA, {"answer_end": "<|eot_id|>"}, bos="<|begin|>", eos="<|end_of_text|>"),
    "no end but eos": Sample(
        "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant\n{% endif %}",
        {"answer_end": "</s>"},
        eos="</s>",
    ),
    "an end behind a space": Sample(
        "{% for m in messages %}{{ m.role }}: {{ m.content }} </s>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}",
        {"answer_end": " </s>"},
        eos="</s>",
    ),
    "no end at all": Sample(
        "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant\n{% endif %}",
        {"refused": "nothing ends an answer"},
        eos=None,
    ),
    # What it makes of texts.
    "trims": Sample(_chatml("{{ m.content | trim }}"), _SPELLED),
    "strips answers": Sample(
        _chatml("{{ m.content.strip() if m.role == 'assistant' else m.content }}" + _CALLS, head=_JSON_LIST), _NATIVE
    ),
    "drops what is said beside calls": Sample(
        _chatml(
            "{% if m.tool_calls %}" + _CALLS.replace("m.content or ", "") + "{% else %}{{ m.content }}{% endif %}",
            head=_JSON_LIST,
        ),
        {"calls": "spelled"},
    ),
    "calls in front of what is said": Sample(
        _chatml(_CALLS.replace("m.content or ", "") + "{{ m.content }}", head=_JSON_LIST), {}
    ),
    "one call a turn raises": Sample(
        _chatml(
            _SAID_AND_CALLED,
            head=_JSON_LIST,
            guard="{% if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}",
        ),
        {"calls": "spelled"},
    ),
    "one call a turn is shown": Sample(
        _chatml(_SAID_AND_CALLED.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"), head=_JSON_LIST),
        {"calls": "spelled"},
    ),
    "escapes": Sample(_chatml("{{ m.content | e }}"), _SPELLED),
    "on one line": Sample(_chatml("{{ m.content | replace('\n', ' ') }}"), _SPELLED),
    "empty texts raise": Sample(
        _chatml(guard="{% if not m.content %}{{ raise_exception('say something') }}{% endif %}"), _SPELLED
    ),
    "empty texts raise, and roles by turns": Sample(
        _chatml(
            guard="{% if not m.content or m.role == 'system' or (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('no') }}{% endif %}"
        ),
        _SPELLED | {"system": "user", "neighbours": "joined"},
    ),
    "results after calls only": Sample(
        _chatml(
            _SAID_AND_CALLED,
            head=_JSON_LIST,
            guard="{% if m.role == 'tool' and not (messages[loop.index0 - 1].tool_calls or "
            "messages[loop.index0 - 1].role == 'tool') %}{{ raise_exception('result of what?') }}{% endif %}",
        ),
        _NATIVE,
    ),
    "results without a call are dropped": Sample(
        _chatml(_SAID_AND_CALLED, head=_JSON_LIST)
        .replace(
            "{% for m in messages %}",
            "{% for m in messages %}{% if m.role != 'tool' or (loop.index0 and (messages[loop.index0 - 1].tool_calls "
            "or messages[loop.index0 - 1].role == 'tool')) %}",
        )
        .replace("<|im_end|>\n{% endfor %}", "<|im_end|>\n{% endif %}{% endfor %}"),
        _NATIVE,
    ),
    "the system joins the first question": Sample(
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ system if loop.first }}{{ m.content }}<|im_end|>\n"
        "{% endfor %}" + _ASK,
        {"system": "system"},
    ),
    "a user has to ask": Sample(
        _chatml(
            head="{% set ns = namespace(asked=false) %}{% for m in messages %}{% if m.role == 'user' and not "
            "m.content.startswith('<tool_response>') %}{% set ns.asked = true %}{% endif %}{% endfor %}"
            "{% if not ns.asked %}{{ raise_exception('No user query found') }}{% endif %}"
        ),
        _SPELLED,
    ),
    "tags are special tokens": Sample(
        _chatml(_SAID_AND_CALLED, head=_JSON_LIST), _SPELLED, special=("<tool_call>", "</tool_call>", "<think>")
    ),
    # Developers.
    "developer is a role": Sample(
        _chatml(guard="{% if m.role == 'system' %}{{ raise_exception('developer') }}{% endif %}"),
        {"system": "developer"},
    ),
    "developer is dropped": Sample(
        "{% for m in messages if m.role in ['system', 'user', 'assistant'] %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endfor %}" + _ASK,
        {"system": "system"},
    ),
    "unknown roles raise": Sample(
        _chatml(guard="{% if m.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}"),
        {"system": "system"},
    ),
    # The beginning.
    "begins with bos": Sample("{{ bos_token }}" + _chatml(), {}, bos="<s>"),
    "begins with bos in a loop": Sample(
        _chatml(guard="{% if loop.first %}{{ bos_token }}{% endif %}"), {}, bos="<|begin|>"
    ),
    # Garbage.
    "nothing": Sample("{# nothing #}", {"refused": "what the user says"}),
    "the last message only": Sample(
        "{% set m = messages[-1] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" + _ASK,
        {"refused": "can't be separated"},
    ),
    "raises": Sample("{{ raise_exception('pictures only') }}", {"refused": "pictures only"}),
    "is broken": Sample("{% for m in messages %}", {"refused": "TemplateSyntaxError"}),
    "counts": Sample("{{ messages | length }}", {"refused": "what the user says"}),
    "in capitals": Sample(_chatml("{{ m.content | upper }}"), {"refused": "says"}),
    "cuts long texts": Sample(_chatml("{{ m.content[:500] }}"), {"refused": "cuts long messages off"}),
    "backwards": Sample(_chatml().replace("in messages", "in messages | reverse"), {"refused": "can't be separated"}),
    "never ends": Sample("{% for n in range(10**9) %}{{ messages }}{% endfor %}", {"refused": "Range too big"}),
}


def spaced_tokenizer(sample: Sample, prepends: str) -> PreTrainedTokenizerBase:
    """A token a character, as SentencePiece has them: with a space in front of a text.

    Args:
        prepends: to the `first` text in front of a special token only, or `always`.
    """
    characters = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters, "\u2581"]
    model = models.BPE({piece: n for n, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepends, split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1)]
    inner.decoder = decoders.Sequence(steps)
    build: Any = PreTrainedTokenizerFast  # untyped in transformers
    written = [text for text in sample.tokenizer().all_special_tokens if text not in ("<unk>", sample.eos, sample.bos)]
    names = {"unk_token": "<unk>", "eos_token": sample.eos, "bos_token": sample.bos}
    made = build(tokenizer_object=inner, additional_special_tokens=written, **{k: v for k, v in names.items() if v})
    made.add_tokens(["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"])
    made.chat_template = sample.template
    return made
