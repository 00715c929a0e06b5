"""What an answer must be, and the grammar of it: JSON by a schema, calls of tools, or text with calls.

Grammars are texts in llguidance's dialect of Lark, which vLLM reads as well. A call is written in the form that the
base's template writes and `memgen.text.answers` reads back. Compiles nothing.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

from memgen.text.calls import CALL_END, CALL_OPENING
from memgen.text.profile import BaseProfile
from memgen.text.reasoning import REASONING_END

_PROBE_NAME, _PROBE_KEY = "probe_name", "probe_key"
_SPELLED_OBJECT = f'{{"name": "{_PROBE_NAME}", "arguments": {{"{_PROBE_KEY}": 1}}}}'


@dataclass(frozen=True)
class CallForm:
    """A tool that may be called."""

    name: str
    schema: str
    """JSON text of its arguments' schema, from `json_schemas.grammar_schema`."""


@dataclass(frozen=True)
class Constraint:
    """What an answer must be: calls of tools, content by a schema, or either of them; nothing else.

    With tools that need not be called and no schema, it is any text in which what is opened as a call is one.
    """

    schema: str | None = None
    """JSON text of the content's schema, from `json_schemas.grammar_schema`; None where content is free."""
    calls: tuple[CallForm, ...] = ()
    must_call: bool = False
    """The answer is nothing but calls."""
    parallel: bool = True
    """More than one call may be made."""
    optional: bool = False
    """The answer may be free where it can't be held to this."""
    origin: str = "response_format"
    """The field of a request that it comes of, which an error names."""


def grammar_of(constraint: Constraint, profile: BaseProfile, *, opens_reasoning: bool = False) -> str:
    """The grammar of an answer behind a prompt.

    Args:
        opens_reasoning: the prompt opens a thought; the answer ends it first, and it may say anything.
    """
    lead = f"({_quoted(profile.frame.lead)})? " if profile.frame.lead else ""
    rules = ["%llguidance {}"]
    if opens_reasoning:
        rules.append(f"start: thought BREAK {lead}answer")
        rules.append(f"thought[lazy]: TEXT {_quoted(REASONING_END)}\nBREAK: /\\n{{0,2}}/")
    else:
        rules.append(f"start: {lead}answer")
    rules.append("TEXT: /(.|\\n)*/")
    content = f"%json {constraint.schema}" if constraint.schema is not None else None
    if not constraint.calls:
        rules.append(f"answer: {content or 'TEXT'}")
        return "\n".join(rules) + "\n"
    opening, end, between = call_frame(profile)
    whole = f"call_body {_quoted(end)}"
    opened = f"{_quoted(opening)} {whole}"
    more = f" ({_quoted(between + opening)} {whole})*" if constraint.parallel else ""
    if constraint.must_call:
        rules.append(f"answer: {opened}{more}")
    elif content is not None:
        rules += [f"answer: content | {opened}{more}", f"content: {content}"]
    else:
        behind = opening.removeprefix(CALL_OPENING)
        rules.append(f"call_head[lazy]: TEXT {_quoted(CALL_OPENING)}")
        rules.append(f"call: call_head {f'{_quoted(behind)} ' if behind else ''}{whole}")
        rules.append("answer: call* TEXT" if constraint.parallel else "answer: call | TEXT")
    bodies = [f"call_{number}" for number in range(len(constraint.calls))]
    rules.append(f"call_body: {' | '.join(bodies)}")
    for body, call in zip(bodies, constraint.calls, strict=True):
        head = f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": '
        rules.append(f'{body}: {_quoted(head)} {body}_arguments "}}"\n{body}_arguments: %json {call.schema}')
    return "\n".join(rules) + "\n"


@lru_cache(maxsize=16)
def call_frame(profile: BaseProfile) -> tuple[str, str, str]:
    """(in front of a call's object, behind it, between two calls), as the base's template writes calls.

    The spelled form where the template writes another object than ours between the tags.
    """
    probe = {"name": _PROBE_NAME, "arguments": {_PROBE_KEY: 1}}
    call = {"type": "function", "function": {**probe, "arguments": json.dumps(probe["arguments"])}}
    calls = [{"id": f"call0000{number}", **call} for number in range(2)]
    written = profile.answer_text({"role": "assistant", "content": "", "tool_calls": calls})
    parts = written.split(_SPELLED_OBJECT)
    if len(parts) == 3:
        opening = CALL_OPENING + parts[0].rpartition(CALL_OPENING)[2]
        end, found, behind = parts[1].partition(CALL_END)
        between, again, gap = behind.partition(CALL_OPENING)
        gaps = opening.removeprefix(CALL_OPENING), end, between, gap
        if found and again and CALL_OPENING in parts[0] and gap == gaps[0] and not any(map(str.strip, gaps)):
            return opening, end + CALL_END, between
    return CALL_OPENING, CALL_END, "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
