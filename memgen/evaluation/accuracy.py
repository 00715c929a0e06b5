"""Scores of a memory, or of the bare base, on a suite: the model answers each item, the task's grader judges."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from memgen.errors import NothingToTrain
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest, check_fits
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import LIKELIHOOD, Reference, make_grader
from memgen.text.answers import parse_answer
from memgen.text.chat import render_answer, render_prompt, tokenize
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
class ItemScore:
    score: float
    """In [0, 1]."""
    answer: str


@dataclass(frozen=True)
class SuiteScore:
    score: float
    """Mean of the items'."""
    items: tuple[ItemScore, ...]
    seconds: float


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


def score_suite(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[HeldOutItem],
    grader: dict[str, Any],
    *,
    batch_size: int = 32,
    on_done: Callable[[int], None] | None = None,
) -> SuiteScore:
    """Score `memory` (None: the bare base) on `items` with the grader of the spec. Greedy, so repeatable.

    Raises:
        UnknownGrader: the spec names none.
        PromptTooLong: an item does not fit the model.
    """
    started = time.perf_counter()
    if grader.get("kind") == LIKELIHOOD:
        scores = _likelihoods(host, memory, items, batch_size, on_done)
    else:
        scores = _graded(host, memory, items, grader, batch_size, on_done)
    mean = sum(item.score for item in scores) / len(scores)
    return SuiteScore(mean, tuple(scores), time.perf_counter() - started)


def answer_budget(host: AdapterHost, items: Sequence[HeldOutItem]) -> int:
    """New tokens allowed for an answer: a quarter more than the longest reference, so that none is cut off."""
    longest = max(len(_example(host, item).target_ids) for item in items)
    return longest + longest // 4 + 8


def _graded(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[HeldOutItem],
    spec: dict[str, Any],
    batch_size: int,
    on_done: Callable[[int], None] | None,
) -> list[ItemScore]:
    grade = make_grader(spec)
    tokenizer, sampling = host.backbone.tokenizer, Sampling(max_new_tokens=answer_budget(host, items))
    prompts = [tokenize(tokenizer, render_prompt(tokenizer, item.messages, item.tools)) for item in items]
    cues = host.cues(memory, [item.messages for item in items])
    requests = [
        GenerationRequest(prompt, sampling, memory, cue_ids=cue.token_ids)
        for prompt, cue in zip(prompts, cues, strict=True)
    ]
    answers = generate_all(host, requests, batch_size=batch_size, on_done=on_done)
    return [
        ItemScore(grade(parse_answer(answer.text), item.reference), answer.text)
        for answer, item in zip(answers, items, strict=True)
    ]


@torch.no_grad()
def _likelihoods(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[HeldOutItem],
    batch_size: int,
    on_done: Callable[[int], None] | None,
) -> list[ItemScore]:
    """exp(-mean token loss) of each reference: the geometric mean probability of its tokens."""
    prefixes = PrefixStore(host.backbone, max_bytes=0)
    cues = host.cues(memory, [item.messages for item in items])
    examples = [replace(_example(host, item), cue_ids=cue.token_ids) for item, cue in zip(items, cues, strict=True)]
    for example in examples:
        sampling = Sampling(max_new_tokens=len(example.target_ids))
        check_fits(host, GenerationRequest(example.prompt_ids, sampling, memory, cue_ids=example.cue_ids))
    scores: list[ItemScore] = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        nll, rows = supervised_nll(host, memory, batch, prefixes)
        for loss in mean_by_example(nll, rows, len(batch)).tolist():
            scores.append(ItemScore(math.exp(-loss), ""))
        if on_done:
            on_done(len(scores))
    return scores


def _example(host: AdapterHost, item: HeldOutItem) -> Example:
    tokenizer = host.backbone.tokenizer
    prompt, answer = render_answer(tokenizer, [*item.messages, item.reference.message], item.tools)
    return Example(tokenize(tokenizer, prompt), tokenize(tokenizer, answer))
