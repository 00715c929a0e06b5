"""Insights distilled by the base: it writes a rule about prompts that were answered badly and well."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memgen.errors import PromptTooLong
from memgen.experience.insights import Pair, insight_id
from memgen.experience.pool import Insight, merged_insights
from memgen.generation.engine import generate_all
from memgen.generation.requests import Generation, GenerationRequest, check_fits
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost

_QUESTION = """Two attempts at the same task follow. One failed, one succeeded.

Task:
{prompt}

Failed attempt (reward {failure_reward:g}):
{failure}

Successful attempt (reward {success_reward:g}):
{success}

Compare them. Write one short, general rule that helps with other tasks of this kind. Do not mention this task's own \
numbers, names or answer. Write the rule only, in one sentence."""


_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)]|rule\s*\d*\s*:)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Distilled:
    insights: tuple[Insight, ...]
    """Without duplicates; what most pairs led to first."""
    skipped_long: int
    """Pairs that exceed the model's context."""
    skipped_empty: int
    """Pairs to which the model wrote nothing."""


def distil(
    host: AdapterHost,
    pairs: Sequence[Pair],
    *,
    max_new_tokens: int = 48,
    batch_size: int = 16,
    generate: Callable[..., list[Generation]] = generate_all,
) -> Distilled:
    """Let the bare base write one rule for each pair, greedily.

    Args:
        generate: answers the requests; called as `generate_all`.
    """
    requests: list[tuple[Pair, GenerationRequest]] = []
    for pair in pairs:
        request = GenerationRequest(_question(host, pair), Sampling(max_new_tokens))
        try:
            check_fits(host, request)
        except PromptTooLong:
            continue
        requests.append((pair, request))
    answers = generate(host, [request for _, request in requests], batch_size=batch_size)
    found = []
    for (pair, _), answer in zip(requests, answers, strict=True):
        if rule := _first_rule(answer.text):
            task, sources = pair.success.task, (pair.failure.entry_id, pair.success.entry_id)
            found.append(Insight(insight_id(task, rule), task, rule, (pair.success.prompt,), sources))
    return Distilled(merged_insights(found), len(pairs) - len(requests), len(requests) - len(found))


def _question(host: AdapterHost, pair: Pair) -> tuple[int, ...]:
    text = _QUESTION.format(
        prompt=pair.success.prompt.strip(),
        failure=pair.failure.answer.strip(),
        failure_reward=pair.failure.reward,
        success=pair.success.answer.strip(),
        success_reward=pair.success.reward,
    )
    return host.backbone.profile.prompt_ids([{"role": "user", "content": text}])


def _first_rule(answer: str) -> str:
    """The first line with words in it, without a list's mark."""
    lines = (_MARK.sub("", line).strip() for line in answer.split("\n"))
    return next((line for line in lines if any(character.isalpha() for character in line)), "")
