"""Replies of `/v1/completions`: text as the model wrote it, with nothing read into it. Pure."""

import uuid
from collections.abc import Iterable, Sequence

from api.endpoints.answer_stream import data_event
from api.endpoints.chat_reply import Reply
from api.http.json_object import JsonObject
from api.http.openai_errors import openai_error, openai_status
from api.http.problems import Described
from api.inference.requests import Finished, Piece


class CompletionShape:
    """`api.endpoints.answer_stream.AnswerShape` of `/v1/completions`."""

    def __init__(self, reply: Reply, answers_each: int, choices: int) -> None:
        """`reply` is a chat's without tools; `answers_each` of the `choices` answer each prompt."""
        self._reply, self._each, self._choices = reply, answers_each, choices
        self._sent: dict[int, int] = {}
        self._answers: list[Finished] = []

    def whole(self, answers: Sequence[Finished]) -> JsonObject:
        return {
            **self._head(),
            "choices": [
                _choice(each.choice, each.generation.text, each.generation.finish_reason, self._logprobs(each))
                for each in answers
            ],
            "usage": self._usage(answers),
            "memgen": self._reply.completion(answers)["memgen"],
        }

    def message(self, answer: Finished) -> tuple[JsonObject, str]:
        return self._reply.message(answer)

    def opening(self) -> Iterable[str]:
        return ()

    def event(self, event: Piece | Finished) -> Iterable[str]:
        sent = self._sent.get(event.choice, 0)
        if isinstance(event, Piece):
            self._sent[event.choice] = sent + len(event.text)
            yield self._chunk([_choice(event.choice, event.text)])
            return
        self._answers.append(event)
        generation = event.generation
        last = _choice(event.choice, generation.text[sent:], generation.finish_reason, self._logprobs(event))
        is_last = len(self._answers) == self._choices
        stamp = {"memgen": self._reply.completion(self._answers)["memgen"]} if is_last else {}
        yield self._chunk([last], **stamp)

    def ending(self) -> Iterable[str]:
        if self._reply.include_usage:
            yield self._chunk([], usage=self._usage(self._answers))
        yield "data: [DONE]\n\n"

    def failure(self, error: Described) -> Iterable[str]:
        yield data_event(openai_error(openai_status(error.status), error.code, error.detail))

    def _chunk(self, choices: list[JsonObject], **more: JsonObject) -> str:
        usage = {"usage": None} if self._reply.include_usage else {}
        return data_event({**self._head(), "choices": choices, **usage, **more})

    def _head(self) -> JsonObject:
        reply = self._reply
        return {
            "id": reply.id,
            "object": "text_completion",
            "created": reply.created,
            "model": reply.resolution.label,
        }

    def _usage(self, answers: Sequence[Finished]) -> JsonObject:
        """Each prompt was read once for all of its answers, and counts once."""
        read = sum(each.generation.prompt_tokens for each in answers if each.choice % self._each == 0)
        written = sum(len(each.generation.token_ids) for each in answers)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def _logprobs(self, answer: Finished) -> JsonObject | None:
        """As this API has them: lists beside one another, and where each token begins in the text."""
        [choice] = self._reply.completion([answer])["choices"]
        if choice["logprobs"] is None:
            return None
        entries = choice["logprobs"]["content"]
        offsets, at = [], 0
        for entry in entries:
            offsets.append(at)
            at += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [{each["token"]: each["logprob"] for each in entry["top_logprobs"]} for entry in entries],
            "text_offset": offsets,
        }


def new_text_id() -> str:
    return f"cmpl-{uuid.uuid4().hex}"


def _choice(index: int, text: str, finish_reason: str | None = None, logprobs: JsonObject | None = None) -> JsonObject:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
