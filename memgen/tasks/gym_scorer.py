"""A dataset of reasoning-gym with its own scorer, whatever is answered.

Some of its scorers evaluate the answer, or the entry, as Python (`eval`, or sympy's parser). Those run in the sandbox,
which is slow, for each process imports reasoning-gym anew; the others run here.
"""

import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from memgen.errors import ConfigError
from memgen.tasks.sandbox import Limits, run_tests

_EVALUATES = re.compile(r"\b(?:eval|exec|compile|sympy|sympify|parse_expr)\b")
LIMITS = Limits(seconds=20.0, memory_bytes=2 << 30)
"""Enough for the import too."""
_UNFIT = {
    "composite": "is made of other datasets; name one of those",
    "game_of_life_halting": "has a scorer that compares the truth of texts, by which any answer is right or none",
}
_SCORE = """
import json, reasoning_gym
job = json.loads({job!r})
made = reasoning_gym.create_dataset(job["dataset"], size=1, seed=0, **job["options"])
score = float(made.score_answer(job["answer"], job["entry"]))
"""


@dataclass(frozen=True)
class GymScorer:
    """Called with an answer and the entry that it answers, it gives the score in [0, 1].

    An answer that the scorer can't read, and it raises, scores 0.

    Raises:
        ConfigError: reasoning-gym has no such dataset, or refuses the options.
        SandboxUnavailable: when called, where the scorer evaluates answers and this system can't isolate it.
    """

    dataset: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the dataset's config, such as `min_words`."""
    limits: Limits = LIMITS
    """Limits of one scoring in the sandbox."""

    def __post_init__(self) -> None:
        if self.dataset in _UNFIT:
            raise ConfigError(f"reasoning-gym's {self.dataset!r} {_UNFIT[self.dataset]}")
        _ = self._made

    def __call__(self, answer: str, entry: Mapping[str, Any]) -> float:
        try:
            score = self._sandboxed_score(answer, entry) if self.sandboxed else self._made.score_answer(answer, entry)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
            return 0.0
        return min(max(float(score), 0.0), 1.0)

    def entries(self, *, size: int, seed: int) -> Any:
        """The entries that the seed gives: an iterable of dicts with `question`, `answer` and `metadata`."""
        return _create(self.dataset, size=size, seed=seed, **self.options)

    @cached_property
    def sandboxed(self) -> bool:
        """Whether its scorer could run what is answered: whether the modules that it is made of know how to."""
        from reasoning_gym.dataset import ProceduralDataset  # optional, and slow to import

        own = type(self._made)
        if own.score_answer is ProceduralDataset.score_answer:  # which compares texts
            return False
        modules = {kind.__module__ for kind in own.__mro__ if kind.__module__.startswith("reasoning_gym")}
        return any(_EVALUATES.search(inspect.getsource(sys.modules[name])) for name in modules)

    def _sandboxed_score(self, answer: str, entry: Mapping[str, Any]) -> float:
        job = {"dataset": self.dataset, "options": dict(self.options), "answer": answer, "entry": entry}
        source = _SCORE.format(job=json.dumps(job))
        result = run_tests(source, "print(f'\\n{score}')", limits=self.limits)
        return float(result.output.split()[-1]) if result.passed else 0.0

    @cached_property
    def _made(self) -> Any:
        try:
            made = _create(self.dataset, size=1, seed=0, **self.options)
            _ = made[0]
        # Which errors an option leads to is each dataset's own affair.
        except Exception as error:
            raise ConfigError(
                f"reasoning-gym makes no dataset {self.dataset!r} with the options {self.options!r}: {error!r}. "
                f"It has {', '.join(dataset_names())}"
            ) from error
        return made


def dataset_names() -> list[str]:
    """The datasets that reasoning-gym has, but for those that can't be played."""
    from reasoning_gym.factory import DATASETS  # optional, and slow to import

    return sorted(set(DATASETS) - set(_UNFIT))


def _create(name: str, *, size: int, seed: int, **options: Any) -> Any:
    import reasoning_gym as gym  # optional, and slow to import

    return gym.create_dataset(name, size=size, seed=seed, **options)
