"""Items and latents made up for tests of the analysis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgen.analysis.items import AnalysisItem, ReadAnalysisItem, read_analysis_items
from memgen.analysis.latents import LatentPlace, Latents, latents_of
from memgen.analysis.runs import AnalysisRun, Change, Outcome, run_items
from memgen.evaluation.accuracy import item_of
from memgen.memory.host import AdapterHost

EXACT = {"kind": "exact"}
STARTS_ALIKE = {"kind": "regex", "pattern": r"(?s)^(.{1,8})"}
"""An answer is right if it begins as the reference does: random weights never end one."""
RUN = AnalysisRun(batch_size=8)


def item(
    number: int, answer: str = "yes", *, task: str = "words", grader: dict[str, Any] | None = None
) -> AnalysisItem:
    """An item with a question of its own."""
    question = f"say {answer} {number}" + "!" * (number % 5)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return AnalysisItem(f"{task}-{number}", task, grader or EXACT, item_of(messages, None, {}))


def outcomes_of(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[ReadAnalysisItem],
    change: Change = lambda _, request: request,
) -> list[Outcome]:
    """What becomes of the items."""
    parts = run_items(host, [memory] * len(items), items, RUN, phase="test", change=change)
    return [outcome for some in parts for outcome in some]


def echoing(host: AdapterHost, memory: str | None, count: int = 8) -> list[AnalysisItem]:
    """Items that the memory answers right, whatever its weights: its own answers are the references."""
    items = [item(n, "yes, it is, so, and so.", grader=STARTS_ALIKE) for n in range(count)]
    said = [outcome.score.answer.strip() for outcome in outcomes_of(host, memory, read_analysis_items(host, items))]
    return [answered_by(one, text) for one, text in zip(items, said, strict=True)]


def answered_by(made: AnalysisItem, answer: str) -> AnalysisItem:
    """The same item with another right answer."""
    messages = [*made.held_out.messages, {"role": "assistant", "content": answer}]
    return AnalysisItem(made.item_id, made.task, made.grader, item_of(messages, None, {}))


def made_latents(states: NDArray[np.float32], *, per_item: int = 4, tasks: Sequence[str] = ("a", "b")) -> Latents:
    """Latents of items with `per_item` each, of tasks by turns."""
    places = [
        LatentPlace(
            item=f"i{row // per_item}",
            task=tasks[row // per_item % len(tasks)],
            position=10,
            insertion=0,
            at_prompt_end=True,
            latent=row % per_item,
            right=row // per_item % 3 == 0,
        )
        for row in range(len(states))
    ]
    return latents_of(states, places)


def planted(clusters: int, count: int, *, hidden: int = 32, spread: float = 0.1, seed: int = 0) -> NDArray[np.float32]:
    """Latents around directions at right angles, taking turns."""
    rng = np.random.default_rng(seed)
    centres = np.eye(hidden)[:clusters]
    states = centres[np.arange(count) % clusters] + rng.normal(0, spread, (count, hidden))
    return states.astype(np.float32)


def noise(count: int, *, hidden: int = 32, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, hidden)).astype(np.float32)
