"""A chat's reply as OpenAI streams it: chunks, from what the engine says. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from api.endpoints.answer_stream import data_event
from api.endpoints.chat_reply import Reply, Telling
from api.http.json_object import JsonObject
from api.http.openai_errors import openai_error, openai_status
from api.http.problems import Described
from api.inference.requests import Finished, Piece
from memgen.text.reasoning import REASONING_END


class ChatChunks:
    """The chunks of one reply, in order."""

    def __init__(self, reply: Reply, choices: int) -> None:
        self.reply = reply
        self._choices = choices
        self._answers: list[Finished] = []
        self._tellings: dict[int, Telling] = {}

    def opening(self) -> Iterator[JsonObject]:
        return map(self.reply.opening, range(self._choices))

    def event(self, event: Piece | Finished) -> Iterator[JsonObject]:
        telling = self._tellings.get(event.choice)
        if telling is None:
            telling = self._tellings[event.choice] = self.reply.telling(event)
        if isinstance(event, Piece):
            for delta in telling.push(event.text):
                yield self.reply.delta(event.choice, delta)
            return
        self._answers.append(event)
        *before, last = self.reply.ending(event, telling)
        yield from before
        yield self.reply.stamped(last, self._answers) if len(self._answers) == self._choices else last

    def ending(self) -> Iterator[JsonObject]:
        if self.reply.include_usage:
            yield self.reply.usage(self._answers)


def as_streamed(answer: Finished) -> Iterator[Piece | Finished]:
    """A whole answer as the fewest events of a stream that tell it in the same order: a text behind a call comes behind
    it. A thought of the prompt that never ends is known at the end only for the answer that it is."""
    if not answer.opened or REASONING_END in answer.generation.text:
        yield Piece(answer.choice, answer.generation.text, answer.opened)
    yield answer


def own_text(delta: JsonObject, *, behind_call: bool) -> str:
    """The delta's content where it stands by itself: without the line break that stands for a call between two texts of
    a chat's content."""
    text = str(delta.get("content") or "")
    return text.removeprefix("\n") if behind_call else text


class ChatShape:
    """`api.endpoints.answer_stream.AnswerShape` of `/v1/chat/completions`."""

    def __init__(self, reply: Reply, choices: int) -> None:
        self._chunks = ChatChunks(reply, choices)

    def whole(self, answers: Sequence[Finished]) -> JsonObject:
        return self._chunks.reply.completion(answers)

    def message(self, answer: Finished) -> tuple[JsonObject, str]:
        return self._chunks.reply.message(answer)

    def opening(self) -> Iterable[str]:
        return map(data_event, self._chunks.opening())

    def event(self, event: Piece | Finished) -> Iterable[str]:
        return map(data_event, self._chunks.event(event))

    def ending(self) -> Iterable[str]:
        yield from map(data_event, self._chunks.ending())
        yield "data: [DONE]\n\n"

    def failure(self, error: Described) -> Iterable[str]:
        yield data_event(openai_error(openai_status(error.status), error.code, error.detail))
