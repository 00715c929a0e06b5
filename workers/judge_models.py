"""What a judge's model is asked and what comes back, whichever model it is.

`workers.local_judge` asks the worker's own base, `workers.upstream_judge` another endpoint. This module loads neither.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.judging.prompts import JudgePrompt

Build = Callable[[int], JudgePrompt | None]
"""A prompt of at most so many characters of recordings, or None if they can't be shown in so few."""

BATCH = 8
"""Questions that are asked together: a job that dies loses at most their answers."""


@dataclass(frozen=True)
class Ask:
    prompt: JudgePrompt
    prompt_tokens: int
    """How many it has, or about so many where only the upstream knows."""
    second: bool = False
    """Whether the first answer could not be read."""


@dataclass(frozen=True)
class Heard:
    """What came back: a text, or why there is none."""

    text: str = ""
    refusal: str = ""
    """Why this question can't be answered, whoever asks how often."""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class JudgeModel(Protocol):
    def fit(self, build: Build) -> tuple[JudgePrompt, int] | None:
        """The longest prompt that the model takes, with its tokens; None if there is none."""

    def ask(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard]:
        """Answers in the order of the questions. `check` raises when the job is to stop.

        Raises:
            Unavailable: the model is away; the job goes on later.
            Invalid: it refuses every question, and always will.
        """
