"""Tasks of `bench.trigger`: some that a memory of tool calls helps, some that it hurts.

Helped: tool calls (`bench.tool_calls`), of which the bare base gets none right. Hurt: foreign prompts whose right
answer is by construction the bare base's own, scored by how far an answer goes along with it; and copying a list of
words, which the base can do some of and which is scored by exact match. A trigger learns from the `seen` ones.

Where memory is to be of no consequence instead, the foreign questions are `small talk`: every answer is right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.router import prompts as router_prompts
from bench.tool_calls import ToolCall, tool_calls
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Reference
from memgen.tasks.task import SingleTurn
from memgen.text.answers import Answer, message_text

NEW_TOKENS = 40
SEEN_CALLS = ("set_timer", "send")
_HELD_OUT_SEED = 1_000_000
_TRIGGER_SEED = 2_000_000
_WORDS = ("apple", "river", "stone", "window", "garden", "silver", "music", "paper", "winter", "candle", "bridge")


@dataclass(frozen=True)
class BenchTask:
    """Items of one task, to learn from and to measure on."""

    name: str
    seen: bool
    """Whether the trigger learns from it."""
    training: tuple[SingleTurn, ...]
    held_out: tuple[SingleTurn, ...]


@dataclass(frozen=True)
class Sizes:
    """How many items there are of each sort."""

    weaver: int = 640
    """Tool calls for the weaver, none of them a request that a trigger learns from or is measured on."""
    training: int = 32
    """Items of each seen task."""
    held_out: int = 100
    """Items of each task, or as many as there are."""


def weaver_conversations(sizes: Sizes, seed: int) -> list[dict[str, Any]]:
    """What the weaver learns: tool calls of all four types."""
    others = frozenset(call.request for call in [*_held_out_calls(sizes), *_trigger_calls(sizes)])
    return [{"messages": call.messages} for call in tool_calls(sizes.weaver, seed=seed, without=others)]


def make_tasks(host: AdapterHost, sizes: Sizes, *, harmless: bool = False) -> list[BenchTask]:
    """The same items whatever the seed of a run. The bare base of the host answers the foreign prompts.

    Args:
        harmless: the trigger learns from small talk instead of questions.
    """
    held_out, training = _held_out_calls(sizes), _trigger_calls(sizes)
    foreign = router_prompts.foreign()
    questions = _kept(host, foreign["questions"][: sizes.training + sizes.held_out])
    # Half of them at least are to be measured on.
    learned = min(sizes.training, len(questions) // 2)
    talk = [replace(item, grader=anything) for item in questions]
    return [
        BenchTask("calls", True, _call_items(_seen(training)[: sizes.training]), _call_items(_seen(held_out))),
        BenchTask("small talk", True, tuple(talk[:learned]), tuple(talk[learned:]))
        if harmless
        else BenchTask("questions", True, questions[:learned], questions[learned:]),
        BenchTask("other calls", False, (), _call_items(_unseen(held_out))),
        BenchTask("conversation", False, (), _kept(host, foreign["conversation"][: sizes.held_out])),
        BenchTask("docstrings", False, (), _kept(host, foreign["docstrings"][: sizes.held_out])),
        BenchTask("copying", False, (), _copying(sizes.held_out)),
    ]


def anything(answer: Answer, reference: Reference) -> float:
    """1: every answer is right."""
    return 1.0


def exact(answer: Answer, reference: Reference) -> float:
    """1 if the answer is the reference, without regard to white space around it."""
    return float((answer.content or "").strip() == message_text(reference.message).strip())


def same_words(answer: Answer, reference: Reference) -> float:
    """1 if both have the same words in order, whatever their case and marks."""
    return float(_words(answer.content or "") == _words(message_text(reference.message)))


def along(answer: Answer, reference: Reference) -> float:
    """Share of the reference's words that the answer begins with."""
    words, wanted = (answer.content or "").split(), message_text(reference.message).split()
    alike = 0
    for one, other in zip(words, wanted, strict=False):
        if one != other:
            break
        alike += 1
    return alike / len(wanted) if wanted else float(not words)


def _held_out_calls(sizes: Sizes) -> list[ToolCall]:
    return tool_calls(2 * sizes.held_out, seed=_HELD_OUT_SEED)


def _trigger_calls(sizes: Sizes) -> list[ToolCall]:
    held_out = frozenset(call.request for call in _held_out_calls(sizes))
    return tool_calls(4 * sizes.training, seed=_TRIGGER_SEED, without=held_out)


def _seen(calls: Sequence[ToolCall]) -> list[ToolCall]:
    return [call for call in calls if call.call.startswith(SEEN_CALLS)]


def _unseen(calls: Sequence[ToolCall]) -> list[ToolCall]:
    return [call for call in calls if not call.call.startswith(SEEN_CALLS)]


def _call_items(calls: Sequence[ToolCall]) -> tuple[SingleTurn, ...]:
    return tuple(SingleTurn(c.request, (c.messages[0],), exact, Reference(c.messages[1])) for c in calls)


def _kept(host: AdapterHost, prompts: Sequence[router_prompts.RouterPrompt]) -> tuple[SingleTurn, ...]:
    """Prompts whose right answer is the bare base's."""
    profile = host.backbone.profile
    requests = [GenerationRequest(profile.prompt_ids(prompt.messages), Sampling(NEW_TOKENS)) for prompt in prompts]
    answers = generate_all(host, requests)
    items = []
    for prompt, answer in zip(prompts, answers, strict=True):
        message = {"role": "assistant", "content": answer.text.strip()}
        items.append(SingleTurn(prompt.messages[-1]["content"][:60], prompt.messages, along, Reference(message)))
    return tuple(items)


def _copying(count: int) -> tuple[SingleTurn, ...]:
    generator = torch.Generator().manual_seed(_HELD_OUT_SEED)
    items = []
    for _ in range(count):
        chosen = torch.randperm(len(_WORDS), generator=generator)[:4].tolist()
        text = ", ".join(_WORDS[n] for n in chosen)
        question = {"role": "user", "content": f"Repeat these words and say nothing else: {text}"}
        items.append(SingleTurn(text, (question,), same_words, Reference({"role": "assistant", "content": text})))
    return tuple(items)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())
