"""Asking a chat template, once, what it writes: each question is a small conversation of sentinels, rendered.

From the answers follows the base profile. A template that loses what users or the model say, or from whose text an
answer can't be told apart, is refused here, when a base is chosen, and not at an upload.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from memgen.errors import BaseRefused, ChatTemplateError
from memgen.text.answers import ChatMessage, parse_answer
from memgen.text.control_tokens import ControlTokens
from memgen.text.profile import QUESTION, AnswerFrame, BaseProfile
from memgen.text.template import ChatTemplate, templates_of
from memgen.text.template_form import PLAINEST, TemplateForm

_SYSTEM, _USER, _ANSWER, _LATER, _RESULT = (
    "Sentinelsystem",
    "Sentinelasks",
    "Sentinelsays",
    "Sentinellater",
    "Sentinelresult",
)
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sentineltool",
        "description": "Sentineldescription",
        "parameters": {
            "type": "object",
            "properties": {"sentinelkey": {"type": "string", "description": "Sentinelhint"}},
            "required": ["sentinelkey"],
        },
    },
}
_ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"sentinelkey": 'Sentinelvalue "quoted",\nü {1: 2} </x>'},
    {"sentinelkey": [1, 2.5, True, None, {"deep": {}}]},
    {},
)
"""What calls are tried with: text that must be escaped, every kind of JSON, nothing."""


def probe(tokenizer: PreTrainedTokenizerBase, generation_stops: Iterable[int] = ()) -> BaseProfile:
    """The profile of a base.

    Args:
        generation_stops: end tokens of the base's generation config.

    Raises:
        BaseRefused: the base has no chat template, or one that can't be worked with; the message says why.
    """
    templates = templates_of(tokenizer)
    if not templates:
        raise BaseRefused(
            "the base's tokenizer has no chat template; expected a chat model. Put a `chat_template.jinja` into its "
            "folder, or choose an instruct model."
        )
    profiles, refusals = [], []
    for source in templates:
        try:
            profiles.append(_probe_template(_renders(tokenizer, source), frozenset(generation_stops)))
        except BaseRefused as error:
            refusals.append(error)
    if not profiles:
        raise refusals[-1]
    return next((profile for profile in profiles if profile.form.calls), profiles[-1])


def _renders(tokenizer: PreTrainedTokenizerBase, source: str) -> ChatTemplate:
    """The template, told of no tools and shown contents in a way in which it renders a question."""
    first = ChatTemplate(tokenizer, source)
    for candidate in (first, replace(first, without_tools=()), replace(first, content_as_parts=True)):
        with suppress(ChatTemplateError):
            if QUESTION["content"] in candidate.render([QUESTION], generation_prompt=True):
                return candidate
    return first


def _probe_template(template: ChatTemplate, generation_stops: frozenset[int]) -> BaseProfile:
    control = ControlTokens(template.tokenizer, template.source + _written(template))
    frame = _frame(template, control)
    stops = set(generation_stops)
    if template.tokenizer.eos_token_id is not None:
        stops.add(int(template.tokenizer.eos_token_id))
    if not frame.end and stops:
        frame = replace(frame, end=str(template.tokenizer.convert_ids_to_tokens(min(stops))))
    if frame.end:
        stops.add(control.ids(frame.end)[-1])
    if not stops:
        raise BaseRefused(
            "nothing ends an answer: the template writes no end token behind one, and neither the tokenizer nor the "
            "generation config has one. Set `eos_token` in tokenizer_config.json."
        )
    plain = BaseProfile(template, control, PLAINEST, frame, frozenset(stops))
    _check_history(plain)
    profile = replace(plain, form=_form(plain))
    return replace(profile, writes_date=_writes_date(profile))


def _written(template: ChatTemplate) -> str:
    """All that it writes around turns of each role."""
    texts = []
    for role in ("system", "user", "assistant", "tool"):
        with suppress(ChatTemplateError):
            texts.append(template.render([QUESTION, {"role": role, "content": _ANSWER}, QUESTION]))
        with suppress(ChatTemplateError):
            texts.append(template.render([{"role": role, "content": _ANSWER}, QUESTION], generation_prompt=True))
    return "\n".join(texts)


def _frame(template: ChatTemplate, control: ControlTokens) -> AnswerFrame:
    """What stands around the answer of a short conversation."""
    try:
        prompt = template.render([QUESTION], generation_prompt=True)
        whole = template.render([QUESTION, {"role": "assistant", "content": _ANSWER}])
    except ChatTemplateError as error:
        raise BaseRefused(f"a question and its answer can't be rendered: {error}") from error
    if QUESTION["content"] not in prompt:
        raise BaseRefused("the chat template does not write what the user says")
    before, found, after = whole.partition(_ANSWER)
    if not found:
        raise BaseRefused("the chat template does not write what the assistant says")
    frame = AnswerFrame(before, after, _end(template, control, before, after))
    if before.startswith(prompt):
        extra = before[len(prompt) :]
        return replace(frame, added=extra) if extra.strip() else replace(frame, lead=extra)
    if prompt.startswith(before):
        extra = prompt[len(before) :]
        return replace(frame, dropped=extra) if _opens_thought(extra) else frame
    if prompt.split() == before.split():  # they differ in spaces alone: the prompt's are those that are served
        return frame
    raise BaseRefused(
        "the chat template renders an answered conversation differently from its prompt, so an answer can't be "
        f"separated: the prompt ends in {prompt[-60:]!r}, in front of the answer stands {before[-60:]!r}"
    )


def _end(template: ChatTemplate, control: ControlTokens, before: str, after: str) -> str:
    """The end token that the template writes, with spaces in front of it; else the tokenizer's.

    Some write it between turns only, where it stands in front of what opens the next one.
    """
    for text in (after, _between(template, control, before)):
        found = control.first(text)
        if found and not text[: found[0]].strip():
            return text[: found[1]]
    return str(template.tokenizer.eos_token or "")


def _between(template: ChatTemplate, control: ControlTokens, before: str) -> str:
    """What stands between an answer and the user's next turn, without what opens a user's turn anywhere."""
    talk = [QUESTION, {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _LATER}]
    try:
        between = template.render(talk).partition(_ANSWER)[2].partition(_LATER)[0]
    except ChatTemplateError:
        return ""
    opening = before.partition(QUESTION["content"])[0]
    starts = (start for start in control.starts(between) if opening.endswith(between[start:]))
    return between[: next(starts, len(between))]


def _opens_thought(text: str) -> bool:
    lowered = text.lower()
    return "think" in lowered and "/think" not in lowered


def _check_history(profile: BaseProfile) -> None:
    texts = (_USER, _ANSWER, _LATER)
    if not _shows(profile, _talk(("user", _USER), ("assistant", _ANSWER), ("user", _LATER)), texts):
        raise BaseRefused("the chat template does not write earlier turns of a conversation")
    long = {text: f"{text}{' and more' * 1000} {text}ends" for text in texts}
    talk = _talk(("user", long[_USER]), ("assistant", long[_ANSWER]), ("user", long[_LATER]))
    if not _shows(profile, talk, [f"{text}ends" for text in texts]):
        raise BaseRefused("the chat template cuts long messages off")


def _form(plain: BaseProfile) -> TemplateForm:
    """What the template writes itself, found by asking for one thing after the other."""
    form = PLAINEST
    talk = _talk(("user", _USER), ("assistant", _ANSWER), ("user", _LATER))
    # A template that writes any role would write this one, too, and no model of its maker has seen it.
    for role in ("system", "developer") if "developer" in plain.template.source else ("system",):
        candidate = replace(form, system=role)
        if _shows(replace(plain, form=candidate), [*_talk(("system", _SYSTEM)), *talk], (_SYSTEM, _USER, _LATER)):
            form = candidate
            break
    if form.system:
        alone = _shows(replace(plain, form=form), _talk(("system", _SYSTEM)), (_SYSTEM,))
        form = replace(form, system_alone=alone)
    twice = _talk(("user", "Sentinelone"), ("user", "Sentineltwo"), ("assistant", "Sentinelthree"))
    twice += _talk(("assistant", "Sentinelfour"), ("user", "Sentinelfive"))
    form = _kept(plain, form, {"neighbours": True}, twice, [message["content"] for message in twice])
    late = [*talk[:2], *_talk(("system", "Sentinelnow")), talk[2]]
    started = [*_talk(("system", _SYSTEM)), *late]
    if form.system and _shows(replace(plain, form=replace(form, later_system=True)), late, ("Sentinelnow", _LATER)):
        form = _kept(plain, form, {"later_system": True}, started, (_SYSTEM, _USER, "Sentinelnow", _LATER))
    if not _reads_back(replace(plain, form=form), content=None, calls=1):
        form = replace(form, tags_are_text=True)
    return _with_tools(plain, form)


def _with_tools(plain: BaseProfile, form: TemplateForm) -> TemplateForm:
    listing = replace(plain, form=replace(form, tools=True, tags_are_text=False))
    prompt = [*_talk(("system", _SYSTEM), ("user", _USER))]
    names = ("sentineltool", "Sentineldescription", "sentinelkey", "Sentinelhint", _SYSTEM, _USER)
    if not _shows(listing, prompt, names, [_TOOL]) or not _shows(listing, prompt[1:], names[:4], [_TOOL]):
        return form
    for as_text in (False, True):
        native = replace(listing.form, calls=True, arguments_as_text=as_text)
        if _writes_calls(replace(plain, form=native)):
            return native
    # Calls are spelled: the template's own list of tools is right if it asks for calls in just that form.
    asks_so = re.search(r"<tool_call>\s*{\s*\"name\"", listing.prompt_text(prompt, [_TOOL]))
    return listing.form if asks_so and not form.tags_are_text else form


def _writes_calls(profile: BaseProfile) -> bool:
    """Whether calls and results are shown in a history, and a trained call is read back as what it was."""
    called = {**_turn(_ANSWER, 2), "role": "assistant"}
    results = [{"role": "tool", "tool_call_id": f"c{number}", "content": f"{_RESULT}{number}"} for number in range(2)]
    history = [*_talk(("user", _USER)), called, *results, *_talk(("assistant", "Sentinelend"), ("user", _LATER))]
    texts = (_USER, _ANSWER, f"{_RESULT}0", f"{_RESULT}1", "Sentinelvalue", "Sentinelend", _LATER)
    single = [*_talk(("user", _USER)), _turn(None, 1), results[0]]
    if not all(
        _shows(profile, history, texts, tools)
        and _shows(profile, single, (_USER, "sentineltool", "Sentinelvalue", f"{_RESULT}0"), tools)
        for tools in ([_TOOL], None)
    ):
        return False
    return all(_reads_back(profile, content=content, calls=count) for content in (None, _ANSWER) for count in (1, 2, 3))


def _reads_back(profile: BaseProfile, *, content: str | None, calls: int) -> bool:
    """Whether a turn, as it is trained, is read as what it was once the model says it."""
    turn = _turn(content, calls)
    ids = profile.answer_ids(turn)
    answered = ids[:-1] if ids and ids[-1] in profile.stop_token_ids else ids
    text = str(profile.tokenizer.decode(list(answered), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    answer = parse_answer(text)
    expected = [{"name": "sentineltool", "arguments": arguments} for arguments in _ARGUMENTS[:calls]]
    return (answer.content or "") == (content or "") and list(answer.tool_calls) == expected


def _turn(content: str | None, calls: int) -> ChatMessage:
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {"id": f"c{number}", "type": "function", "function": {"name": "sentineltool", "arguments": arguments}}
            for number, arguments in enumerate(_ARGUMENTS[:calls])
        ],
    }


def _kept(
    plain: BaseProfile, form: TemplateForm, change: dict[str, Any], messages: list[ChatMessage], texts: Sequence[str]
) -> TemplateForm:
    """The form with the change if the template shows all texts so; else as it was."""
    candidate = replace(form, **change)
    return candidate if _shows(replace(plain, form=candidate), messages, texts) else form


def _shows(
    profile: BaseProfile,
    messages: list[ChatMessage],
    texts: Sequence[str],
    tools: list[ChatMessage] | None = None,
) -> bool:
    """Whether the template, in exactly this form, writes every text; in this order unless tools have a part."""
    try:
        rendered, _ = profile.render(messages, tools, profile.form)
    except ChatTemplateError:
        return False
    if tools or profile.form.calls:
        return all(text in rendered for text in texts)
    places = [rendered.find(text) for text in texts]
    return -1 not in places and places == sorted(places)


def _writes_date(profile: BaseProfile) -> bool:
    return profile.prompt_text([QUESTION]) != profile.on(date(1999, 12, 31)).prompt_text([QUESTION])


def _talk(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [{"role": role, "content": content} for role, content in turns]
