"""Scores of a memory, or of the bare base, on a task's items: each is played once, greedily."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import NothingToTrain
from memgen.evaluation.accuracy import SuiteScore
from memgen.evaluation.grading import ItemScore
from memgen.generation.episodes import Episode, PlaySettings, play
from memgen.generation.invocations import InvocationRate, invocation_rate
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import TaskItem


@dataclass(frozen=True)
class TaskScore:
    suite: SuiteScore
    """Scores are the episodes' rewards, answers their turns' texts, one a line."""
    episodes: tuple[Episode, ...]

    @property
    def invocations(self) -> InvocationRate:
        """How often memory was woven, over all turns."""
        return invocation_rate([turn.generation.decisions for episode in self.episodes for turn in episode.turns])


def score_task(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[TaskItem],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    prompts: PromptCache | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TaskScore:
    """Score `memory` (None: the bare base) on `items`, single- or multi-turn.

    Greedy, so the same memory answers the same items alike on the same machine, with no prompts known from before.
    An episode that outgrows the model's context, or whose environment fails, keeps what reward it has; an item that
    nobody can play is left out.

    Args:
        max_new_tokens: most tokens of one turn; the task's.
        batch_size, prompts, should_stop: the fields of `memgen.generation.episodes.PlaySettings`.

    Raises:
        NothingToTrain: no items.
        Cancelled: `should_stop` returned true.
    """
    if not items:
        raise NothingToTrain("got no items to score; expected at least one")
    started = time.perf_counter()
    sampling = Sampling(max_new_tokens=max_new_tokens)
    settings = PlaySettings(batch_size, prompts, should_stop)
    episodes = play(host, memory, items, lambda _item, _turn: sampling, settings=settings)
    scores = [
        ItemScore(
            0.0 if episode.unplayable else episode.reward,
            "\n".join(turn.generation.text for turn in episode.turns),
            episode.trouble,
            episode.unplayable,
        )
        for episode in episodes
    ]
    return TaskScore(SuiteScore.of(scores, time.perf_counter() - started), tuple(episodes))
