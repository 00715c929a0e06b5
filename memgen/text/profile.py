"""The base profile: how conversations become tokens of one base, in training, judging, serving and counting alike.

A prompt is what the base's chat template writes in front of an answer. An answer is rendered behind a short
conversation, whatever its own is: so it costs what it holds, and a template that writes past turns unlike the last
one does not matter. `memgen.text.probing` finds out by rendering what a template writes itself; the rest is spelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from typing import Self

from transformers import PreTrainedTokenizerBase

from memgen.errors import ChatTemplateError
from memgen.text.answers import ChatMessage
from memgen.text.control_tokens import ControlTokens
from memgen.text.history import unified_messages
from memgen.text.reasoning import REASONING_END, split_reasoning
from memgen.text.template import PINNED_DATE, ChatTemplate
from memgen.text.template_form import PLAINEST, SYSTEM_ROLES, TemplateForm, conform, plain_message, spelled_calls
from memgen.text.tool_schemas import plain_tools

QUESTION: ChatMessage = {"role": "user", "content": "Question?"}
"""What the short conversation asks behind which answers are rendered."""


@dataclass(frozen=True)
class AnswerFrame:
    """What stands around an answer behind `QUESTION`, as the template writes it."""

    before: str
    """All in front of the answer's own text."""
    after: str
    """All behind it, at the conversation's end."""
    end: str
    """The text of the token that ends an answer, with the spaces in front of it."""
    lead: str = ""
    """Spaces between the prompt's end and the answer's own text; they belong to the answer."""
    added: str = ""
    """What the prompt gets behind the template's generation prompt: the thought without words that the template writes
    in front of a last answer."""
    dropped: str = ""
    """What the prompt loses at its end: the thought that the generation prompt opens, and answers don't have."""


@dataclass(frozen=True, eq=False)
class BaseProfile:
    """Made by `memgen.text.probing.probe`."""

    template: ChatTemplate
    control: ControlTokens
    form: TemplateForm
    frame: AnswerFrame
    stop_token_ids: frozenset[int]
    """Tokens that end an answer: those of the generation config, the tokenizer's, and the one the template writes."""
    writes_date: bool = False
    today: date = PINNED_DATE
    """The date that is shown where the template writes one."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.template.tokenizer

    def on(self, today: date) -> Self:
        """The profile for serving on that day. Training and judging keep the pinned date."""
        return replace(self, today=today)

    def prompt_text(self, messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None = None) -> str:
        """The text in front of the next assistant turn, for people.

        Raises:
            ChatTemplateError: the template refuses the conversation.
        """
        text, mark = self._prompt(messages, tools)
        return text.replace(mark, "") if mark else text

    def prompt_ids(
        self, messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None = None
    ) -> tuple[int, ...]:
        """The tokens in front of the next assistant turn. No text of the messages or tools is a control token.

        Raises:
            ChatTemplateError: the template refuses the conversation.
        """
        return self.control.ids(*self._prompt(messages, tools))

    def answer_text(self, message: ChatMessage) -> str:
        """An assistant turn as the model is to write it, with what ends it, for people."""
        text, mark = self._answer(message)
        return text.replace(mark, "") if mark else text

    def answer_ids(self, message: ChatMessage) -> tuple[int, ...]:
        """The tokens of an assistant turn, the one that ends it last. A thought in the message is none of them."""
        return self.control.ids(*self._answer(message))

    def turn_ids(
        self, messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(prompt, answer) tokens of the last message, an assistant turn.

        Raises:
            ChatTemplateError: the template refuses the conversation.
        """
        return self.prompt_ids(messages[:-1], tools), self.answer_ids(messages[-1])

    def text_ids(self, text: str, *, begin: bool = False) -> tuple[int, ...]:
        """Token ids of a text outside any conversation; no part of it is a control token.

        Args:
            begin: put in front what the tokenizer begins a text with.
        """
        return self.control.text_ids(text, begin=begin)

    def render(
        self,
        messages: list[ChatMessage],
        tools: Sequence[ChatMessage] | None,
        form: TemplateForm,
        *,
        blank: str = "",
    ) -> tuple[str, str]:
        """(text, mark) of a conversation in one form, up to the template's generation prompt.

        Args:
            blank: what stands for a content without characters.

        Raises:
            ChatTemplateError: the template refuses the conversation in this form.
        """
        try:
            if form.tags_are_text:
                messages, tools = conform(messages, tools, form)
            mark = self.control.mark_for(messages, tools)
            messages, tools = self.control.cut(messages, mark), self.control.cut(tools, mark)
            if not form.tags_are_text:
                messages, tools = conform(messages, tools, form)
        except RecursionError as error:
            raise ChatTemplateError("arguments or tools are nested too deeply to be written") from error
        if blank:
            messages = [{**message, "content": message["content"] or blank} for message in messages]
        return self.template.render(messages, tools, generation_prompt=True, today=self.today), mark

    def _prompt(self, messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None) -> tuple[str, str]:
        """(text, mark that cuts spellings of control tokens in it)."""
        shown = shown_messages(messages)
        tools = plain_tools(tools)
        text, mark = self._rendered(shown, tools)
        return text.removesuffix(self.frame.dropped) + self.frame.added, mark

    def _rendered(self, messages: list[ChatMessage], tools: Sequence[ChatMessage] | None) -> tuple[str, str]:
        """As `render`, in the first form that the template takes: its own, then plain talk; each as it is, then with a
        space for a text without characters, which some refuse; then begun by a user, where none has spoken."""
        plainest = replace(PLAINEST, tags_are_text=self.form.tags_are_text)
        begun = [messages]
        roles = [message["role"] for message in messages]
        if "user" not in roles:
            first = next((place for place, role in enumerate(roles) if role not in SYSTEM_ROLES), len(roles))
            begun.append([*messages[:first], {"role": "user", "content": ""}, *messages[first:]])
        refusals: list[ChatTemplateError] = []
        for shown, form, blank in product(begun, (self.form, plainest), ("", " ")):
            try:
                return self.render(shown, tools, form, blank=blank)
            except ChatTemplateError as error:
                refusals.append(error)
        raise ChatTemplateError(f"{refusals[0]}; spelled as plain turns of user and assistant it did, too")

    def _answer(self, message: ChatMessage) -> tuple[str, str]:
        shown = _without_thought(plain_message(message))
        if self.form.tags_are_text:
            shown = {"role": "assistant", "content": spelled_calls(shown)}
        mark = self.control.mark_for(shown)
        shown = self.control.cut(shown, mark)
        return f"{self.frame.lead}{self._body(shown)}{self.frame.end}", mark

    def _body(self, message: ChatMessage) -> str:
        """What the template writes between the prompt and the end; the text itself where it writes something else."""
        messages, _ = conform([QUESTION, message], None, self.form)
        try:
            whole = self.template.render(messages, today=PINNED_DATE)
        except ChatTemplateError:
            return spelled_calls(message)
        if not whole.startswith(self.frame.before) or not whole.endswith(self.frame.after):
            return spelled_calls(message)
        body = whole[len(self.frame.before) : len(whole) - len(self.frame.after)]
        # What a template writes of an answer is what the model learns to say: never less, or other words.
        return body if message["content"].strip() in body else spelled_calls(message)


def shown_messages(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """What of the messages of a prompt is shown to the model, whatever form its template takes."""
    return [_without_thought(plain_message(message)) for message in unified_messages(messages)]


def _without_thought(message: ChatMessage) -> ChatMessage:
    """An assistant's turn without the thoughts that its content may begin with: none is shown again or learned.

    A turn that is nothing else keeps them, for a memory must not learn to be silent.
    """
    if message["role"] != "assistant" or REASONING_END not in message["content"]:
        return message
    _, content = split_reasoning(message["content"])
    return {**message, "content": content} if content or message.get("tool_calls") else message
