"""Scores of memories, or of the bare base, on a suite: the model answers each item, the task's grader judges.

In which order items are answered follows from the suite alone: they are read once for all subjects, sorted by the
length of their prompts, so many at a time, and no prompt is known from before. In bfloat16 an answer depends on its
company, and two subjects whose answers differ should differ by their weights.

One item's trouble is never the suite's. An item that no subject can be judged on is left out; an answer that a grader
stumbles over is wrong; both say why.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memgen.errors import ChatTemplateError, NothingToTrain, in_one_line
from memgen.evaluation.grading import ItemScore, grade_answer
from memgen.experience.cue import Cue
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest, most_new_tokens
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import LIKELIHOOD, Grader, Reference, make_grader
from memgen.training.examples import Example
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.losses import mean_by_example


@dataclass(frozen=True)
class HeldOutItem:
    """A held-out item: the prompt and tools of its last supervised turn, and the expert's answer."""

    messages: tuple[dict[str, Any], ...]
    tools: list[dict[str, Any]] | None
    reference: Reference


@dataclass(frozen=True)
class ReadItem:
    """A held-out item as the base reads it."""

    item: HeldOutItem
    prompt_ids: tuple[int, ...] = ()
    target_ids: tuple[int, ...] = ()
    """The expert's answer with its end-of-turn token."""
    trouble: str = ""
    """Why nobody can be judged on it; empty if somebody can."""

    @property
    def answer_budget(self) -> int:
        """New tokens allowed for an answer: a quarter more than the reference, so that no right one is cut off."""
        return len(self.target_ids) + len(self.target_ids) // 4 + 8


@dataclass(frozen=True)
class SuiteScore:
    score: float
    """Mean of the items that were judged; 0 if none was."""
    items: tuple[ItemScore, ...]
    seconds: float

    @classmethod
    def of(cls, items: Sequence[ItemScore], seconds: float) -> "SuiteScore":
        judged = [item.score for item in items if not item.left_out]
        return cls(sum(judged) / len(judged) if judged else 0.0, tuple(items), seconds)

    @property
    def notes(self) -> dict[int, str]:
        """What there is to say of single items, by place."""
        return {place: item.note for place, item in enumerate(self.items) if item.note}


def item_of(
    messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None, metadata: dict[str, Any]
) -> HeldOutItem:
    """The item of a trajectory: its last assistant turn with weight is the reference.

    Raises:
        NothingToTrain: no such turn.
    """
    turns = [n for n, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight", 1) != 0]
    if not turns:
        raise NothingToTrain("a held-out trajectory has no supervised assistant turn")
    return HeldOutItem(tuple(messages[: turns[-1]]), tools, Reference(messages[turns[-1]], metadata))


def read_items(host: AdapterHost, items: Sequence[HeldOutItem]) -> list[ReadItem]:
    """The items as the base reads them; one that it can't read, or whose answer has no room, says so."""
    return [_read(host, item) for item in items]


def score_suite(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[HeldOutItem],
    grader: dict[str, Any],
    *,
    batch_size: int = 32,
    on_done: Callable[[int], None] | None = None,
) -> SuiteScore:
    """Score `memory` (None: the bare base) on `items` with the grader of the spec.

    Greedy, so the same memory answers the same suite alike on the same machine; with other items around it, an answer
    may differ in bfloat16.

    Raises:
        UnknownGrader: the spec names none.
        SandboxUnavailable: the grader runs what was answered, and this system can't isolate it.
    """
    return score_items(
        host, [memory] * len(items), read_items(host, items), grader, batch_size=batch_size, on_done=on_done
    )


def score_items(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[ReadItem],
    grader: dict[str, Any],
    *,
    batch_size: int = 32,
    on_done: Callable[[int], None] | None = None,
) -> SuiteScore:
    """Like `score_suite`, with the memory of `memories` for the item at the same place, such as the one that a router
    chose. A wrong choice counts by the score that it led to."""
    started = time.perf_counter()
    places = [place for place, item in enumerate(items) if not item.trouble]
    subjects = subjects_of(host, [memories[place] for place in places], [items[place] for place in places])
    if grader.get("kind") == LIKELIHOOD:
        found = _likelihoods(host, subjects, batch_size, on_done)
    else:
        found = _graded(host, subjects, grader, batch_size, on_done)
    scores = dict(zip(places, found, strict=True))
    in_order = [scores.get(place) or ItemScore(0.0, "", item.trouble, True) for place, item in enumerate(items)]
    if on_done and len(places) < len(items):
        on_done(len(items))
    return SuiteScore.of(in_order, time.perf_counter() - started)


def _read(host: AdapterHost, item: HeldOutItem) -> ReadItem:
    try:
        prompt, answer = host.backbone.profile.turn_ids([*item.messages, item.reference.message], item.tools)
    except (ChatTemplateError, LookupError, TypeError, ValueError) as error:  # a template is foreign code
        return ReadItem(item, trouble=f"the base can't read it: {in_one_line(error)}")
    needed, room = len(prompt) + len(answer), host.backbone.max_tokens
    trouble = f"prompt and expert's answer are {needed} tokens; the base reads {room}" if needed > room else ""
    return ReadItem(item, prompt, answer, trouble)


@dataclass(frozen=True)
class Subject:
    """One item that the base can read, and who answers it."""

    read: ReadItem
    memory: str | None
    cue: Cue
    room: int
    """New tokens that its answer may have at most."""

    @property
    def fits(self) -> bool:
        """Whether the expert's answer would have room beside what the memory weaves."""
        return self.room >= len(self.read.target_ids)

    def unjudged(self) -> ItemScore:
        note = (
            f"beside what the memory weaves there is room for {max(0, self.room)} new tokens; the expert's answer has "
            f"{len(self.read.target_ids)}"
        )
        return ItemScore(0.0, "", note, True)

    def request(self) -> GenerationRequest:
        """What it is asked. Where the memory has no room, the bare base keeps its place: without it, others would have
        other company."""
        prompt, budget = self.read.prompt_ids, self.read.answer_budget
        if not self.fits:
            return GenerationRequest(prompt, Sampling(max_new_tokens=1))
        sampling = Sampling(max_new_tokens=min(budget, self.room))
        return GenerationRequest(prompt, sampling, self.memory, cue_ids=self.cue.token_ids)

    def score(self, grade: Grader, text: str) -> ItemScore:
        """The score of what it answered to its request."""
        return grade_answer(grade, text, self.read.item.reference) if self.fits else self.unjudged()


def subjects_of(host: AdapterHost, memories: Sequence[str | None], items: Sequence[ReadItem]) -> list[Subject]:
    """Each item with the memory that answers it, its cue, and the room that its answer has. No item has `trouble`."""
    cues: dict[int, Cue] = {}
    for memory in dict.fromkeys(memories):
        own = [place for place, name in enumerate(memories) if name == memory]
        cues |= zip(own, host.cues(memory, [items[place].item.messages for place in own]), strict=True)
    found = []
    for place, (memory, read) in enumerate(zip(memories, items, strict=True)):
        room = most_new_tokens(host, GenerationRequest(read.prompt_ids, memory=memory, cue_ids=cues[place].token_ids))
        found.append(Subject(read, memory, cues[place], room))
    return found


def _graded(
    host: AdapterHost,
    subjects: Sequence[Subject],
    spec: dict[str, Any],
    batch_size: int,
    on_done: Callable[[int], None] | None,
) -> list[ItemScore]:
    grade = make_grader(spec)
    requests = [subject.request() for subject in subjects]
    answers = generate_all(host, requests, batch_size=batch_size, on_done=on_done)
    return [subject.score(grade, answer.text) for answer, subject in zip(answers, subjects, strict=True)]


@torch.no_grad()
def _likelihoods(
    host: AdapterHost, subjects: Sequence[Subject], batch_size: int, on_done: Callable[[int], None] | None
) -> list[ItemScore]:
    """exp(-mean token loss) of each reference: the geometric mean probability of its tokens."""
    prefixes = PrefixStore(host.backbone, max_bytes=0)
    scores: dict[int, ItemScore] = {}
    for start in range(0, len(subjects), batch_size):
        batch = range(start, min(start + batch_size, len(subjects)))
        scores |= {place: subjects[place].unjudged() for place in batch if not subjects[place].fits}
        for memory in dict.fromkeys(subjects[place].memory for place in batch):
            own = [place for place in batch if subjects[place].memory == memory and subjects[place].fits]
            if own:
                found = _likelihoods_of(host, memory, [subjects[place] for place in own], prefixes)
                scores |= zip(own, found, strict=True)
        if on_done:
            on_done(len(scores))
    return [scores[place] for place in range(len(subjects))]


def _likelihoods_of(
    host: AdapterHost, memory: str | None, subjects: Sequence[Subject], prefixes: PrefixStore
) -> list[ItemScore]:
    examples = [Example(s.read.prompt_ids, s.read.target_ids, cue_ids=s.cue.token_ids) for s in subjects]
    nll, rows = supervised_nll(host, memory, examples, prefixes)
    losses = mean_by_example(nll, rows, len(examples)).tolist()
    return [
        ItemScore(math.exp(-loss), "") if math.isfinite(loss) else ItemScore(0.0, "", f"the loss is {loss}")
        for loss in losses
    ]
