"""Insights: written by a person, or distilled by the base from a failure beside a success.

ExpeL (arXiv 2308.10144) has a large model compare rollouts of one prompt and edit a list of rules by votes. Here the
frozen base itself writes one rule a pair (`memgen.generation.distil`), and a rule's importance is how many pairs led to
it; there are no votes to edit or remove. For a base of some hundred million parameters, pass insights that a person or
a larger model wrote: so small a model writes platitudes or repeats the answer.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memgen.errors import ConfigError
from memgen.experience.pool import Insight, PastTrajectory, merged_insights
from memgen.experience.retrieval import same_prompt


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


def pairs_of(failures: Sequence[PastTrajectory], successes: Sequence[PastTrajectory]) -> tuple[Pair, ...]:
    """For each prompt of both its worst failure and its best success (the first of equal ones), if that earned more.

    Prompts come in the order of their first failures.
    """
    failed, succeeded = _by_prompt(failures), _by_prompt(successes)
    extremes = (
        (min(failed[prompt], key=_reward), max(succeeded[prompt], key=_reward))
        for prompt in failed
        if prompt in succeeded
    )
    return tuple(Pair(worst, best) for worst, best in extremes if worst.reward < best.reward)


def written_insights(task: str, texts: Iterable[str]) -> tuple[Insight, ...]:
    """Insights that somebody wrote, the most important first; empty and repeated ones are dropped.

    Leave-one-out leaves none of them out, for it is not known which trajectories they were written from.
    """
    return merged_insights(Insight(insight_id(task, text), task, text.strip()) for text in texts if text.strip())


def _by_prompt(trajectories: Sequence[PastTrajectory]) -> dict[tuple[str, str], list[PastTrajectory]]:
    found: dict[tuple[str, str], list[PastTrajectory]] = {}
    for trajectory in trajectories:
        found.setdefault((trajectory.task, same_prompt(trajectory.prompt)), []).append(trajectory)
    return found


def insight_id(task: str, text: str) -> str:
    """An id that follows from the words alone, so that a rule written twice is one."""
    return "insight-" + hashlib.sha256(f"{task}\n{same_prompt(text)}".encode()).hexdigest()[:16]


def _reward(trajectory: PastTrajectory) -> float:
    return trajectory.reward
