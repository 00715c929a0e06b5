"""Insights: given by a person, or distilled by the base from a failure beside a success.

ExpeL (arXiv 2308.10144) has a large model compare rollouts of one prompt and edit a list of rules by votes. Here the
frozen base itself is asked for one rule a pair, and a rule's importance is how many pairs led to it; there are no votes
to edit or remove. A model of some hundred million parameters writes platitudes or repeats the answer: for one as small,
give insights that a person or a larger model wrote.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memgen.chat import render_prompt
from memgen.engine import GenerationRequest, check_fits, generate_all
from memgen.errors import ConfigError, PromptTooLong
from memgen.experience import Insight, PastTrajectory, merged_insights
from memgen.host import AdapterHost
from memgen.retrieval import same_prompt
from memgen.sampling import Sampling
from memgen.training.examples import tokenize

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
class Pair:
    """Two trajectories of one prompt.

    Raises:
        ConfigError: they are of different prompts, or the failure earned no less.
    """

    failure: PastTrajectory
    success: PastTrajectory

    def __post_init__(self) -> None:
        same = same_prompt(self.failure.prompt) == same_prompt(self.success.prompt)
        if not same or self.failure.task != self.success.task:
            raise ConfigError(f"{self.failure.entry_id!r} and {self.success.entry_id!r} are not of one prompt")
        if not self.failure.reward < self.success.reward:
            raise ConfigError(
                f"failure {self.failure.entry_id!r} has reward {self.failure.reward}, success "
                f"{self.success.entry_id!r} has {self.success.reward}; expected less and more"
            )


@dataclass(frozen=True)
class Distilled:
    insights: tuple[Insight, ...]
    """Without duplicates; what most pairs led to first."""
    skipped_long: int
    """Pairs that exceed the model's context."""
    skipped_empty: int
    """Pairs to which the model wrote nothing."""


def pairs_of(failures: Sequence[PastTrajectory], successes: Sequence[PastTrajectory]) -> tuple[Pair, ...]:
    """For each prompt of both its worst failure and its best success, of equals the first, if that earned more.

    Prompts come in the order of their first failures.
    """
    failed, succeeded = _by_prompt(failures), _by_prompt(successes)
    extremes = (
        (min(failed[prompt], key=_reward), max(succeeded[prompt], key=_reward))
        for prompt in failed
        if prompt in succeeded
    )
    return tuple(Pair(worst, best) for worst, best in extremes if worst.reward < best.reward)


def given_insights(task: str, texts: Iterable[str]) -> tuple[Insight, ...]:
    """Insights that somebody wrote, the most important first; empty and repeated ones are dropped.

    Leave-one-out can't know what they were written from.
    """
    return merged_insights(Insight(_entry_id(task, text), task, text.strip()) for text in texts if text.strip())


def distil(host: AdapterHost, pairs: Sequence[Pair], *, max_new_tokens: int = 48, batch_size: int = 16) -> Distilled:
    """Let the bare base write one rule for each pair, greedily."""
    requests: list[tuple[Pair, GenerationRequest]] = []
    for pair in pairs:
        request = GenerationRequest(_question(host, pair), Sampling(max_new_tokens))
        try:
            check_fits(host, request)
        except PromptTooLong:
            continue
        requests.append((pair, request))
    answers = generate_all(host, [request for _, request in requests], batch_size=batch_size)
    found = []
    for (pair, _), answer in zip(requests, answers, strict=True):
        if rule := _first_rule(answer.text):
            task, sources = pair.success.task, (pair.failure.entry_id, pair.success.entry_id)
            found.append(Insight(_entry_id(task, rule), task, rule, (pair.success.prompt,), sources))
    return Distilled(merged_insights(found), len(pairs) - len(requests), len(requests) - len(found))


def _question(host: AdapterHost, pair: Pair) -> tuple[int, ...]:
    text = _QUESTION.format(
        prompt=pair.success.prompt.strip(),
        failure=pair.failure.answer.strip(),
        failure_reward=pair.failure.reward,
        success=pair.success.answer.strip(),
        success_reward=pair.success.reward,
    )
    tokenizer = host.backbone.tokenizer
    return tokenize(tokenizer, render_prompt(tokenizer, [{"role": "user", "content": text}], None))


def _first_rule(answer: str) -> str:
    """The first line with words in it, without a list's mark."""
    lines = (_MARK.sub("", line).strip() for line in answer.splitlines())
    return next((line for line in lines if any(character.isalpha() for character in line)), "")


def _by_prompt(trajectories: Sequence[PastTrajectory]) -> dict[tuple[str, str], list[PastTrajectory]]:
    found: dict[tuple[str, str], list[PastTrajectory]] = {}
    for trajectory in trajectories:
        found.setdefault((trajectory.task, same_prompt(trajectory.prompt)), []).append(trajectory)
    return found


def _entry_id(task: str, text: str) -> str:
    """Of the words alone, so that a rule written twice is one."""
    return "insight-" + hashlib.sha256(f"{task}\n{same_prompt(text)}".encode()).hexdigest()[:16]


def _reward(trajectory: PastTrajectory) -> float:
    return trajectory.reward
