"""What a judge's answer says: one verdict, read exactly, or none.

A model that is held to the schema writes nothing else. Others wrap their JSON in words, fences and thoughts: an object
counts wherever it stands in the text, if it is a whole verdict that carries the question's code. Two different ones
are none: nothing is guessed. A text that a run wrote can't be a verdict, because it can't know the code. Pure.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from registry.judging.prompts import JudgePrompt

_MOST_CHARACTERS = 200_000
"""Longer answers are not looked through."""
_MOST_OBJECTS = 1_000
_REASON_KEPT = 2_000
_THOUGHT_END = "</think>"
"""What stands in front of it may weigh several verdicts."""


@dataclass(frozen=True)
class ReadVerdict:
    reason: str
    score: int | None = None
    """0 to the judge's scale, where one run was scored."""
    ranking: tuple[int, ...] = ()
    """Places of the runs as they were shown, the best first, where several were ranked."""
    kind: str = ""
    """Name of the kind of a mistake, where one was asked for."""


def read_answer(text: str, prompt: JudgePrompt) -> ReadVerdict | None:
    """The verdict in an answer; None if there is none, or more than one.

    For code `ab12` and scale 10: `Sure! {"id": "ab12", "reason": "ok", "score": 7}` is 7. None are
    `{"id": "ab12", "reason": "ok", "score": "7"}`, a score of 11, another code, and two verdicts that differ.
    """
    # The last mark may also stand in the reason, which quotes the run.
    found = _verdicts(text.rpartition(_THOUGHT_END)[2], prompt) or _verdicts(text, prompt)
    verdicts = {(verdict.score, verdict.ranking, verdict.kind) for verdict in found}
    return min(found, key=lambda verdict: verdict.reason) if len(verdicts) == 1 else None


def _verdicts(text: str, prompt: JudgePrompt) -> set[ReadVerdict]:
    """The verdicts behind the thoughts, of which no mark inside an object is the end."""
    found: set[ReadVerdict] = set()
    behind = 0
    for value, start, end in _objects(text):
        if _THOUGHT_END in text[behind:start]:
            found.clear()
        behind = end
        verdict = _verdict(value, prompt)
        if verdict is not None:
            found.add(verdict)
    return set() if _THOUGHT_END in text[behind:] else found


def _verdict(value: dict[str, Any], prompt: JudgePrompt) -> ReadVerdict | None:
    if value.get("id") != prompt.code or set(value) != set(prompt.schema["properties"]):
        return None
    reason = value["reason"]
    if not isinstance(reason, str):
        return None
    reason = reason.replace("\0", "").encode("utf-8", "replace").decode()[:_REASON_KEPT]
    if prompt.labels:
        return _ranking(value["ranking"], reason, prompt)
    if prompt.kinds:
        return ReadVerdict(reason, kind=value["kind"]) if value["kind"] in prompt.kinds else None
    score = value["score"]
    if isinstance(score, bool) or not isinstance(score, int | float):
        return None
    # Its range first, which neither an infinity nor an integer that is no double's has.
    if not 0 <= score <= prompt.schema["properties"]["score"]["maximum"] or score != int(score):
        return None
    return ReadVerdict(reason, score=int(score))


def _ranking(sent: Any, reason: str, prompt: JudgePrompt) -> ReadVerdict | None:
    if not isinstance(sent, list) or sorted(map(str, sent)) != sorted(prompt.labels):
        return None
    return ReadVerdict(reason, ranking=tuple(prompt.labels.index(str(label)) for label in sent))


def _objects(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """(object, where it begins, what is behind it) for the JSON objects that stand in a text, one behind the other;
    what is inside one is not looked at by itself."""
    if len(text) > _MOST_CHARACTERS:
        return
    place = 0
    for _ in range(_MOST_OBJECTS):
        start = text.find("{", place)
        if start < 0:
            return
        try:
            value, place = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            place = start + 1
            continue
        yield value, start, place


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
