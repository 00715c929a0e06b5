"""Scores where each item has its own memory, such as the one a router chose. A wrong choice counts by the score that
it led to.
"""

from collections.abc import Callable, Sequence
from typing import Any

from memgen.evaluation.accuracy import HeldOutItem, ItemScore, SuiteScore, score_suite
from memgen.memory.host import AdapterHost


def score_routed(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[HeldOutItem],
    grader: dict[str, Any],
    *,
    on_done: Callable[[int], None] | None = None,
) -> SuiteScore:
    """Like `score_suite`, with the memory of `memories` (None: the bare base) for the item at the same place."""
    places: dict[str | None, list[int]] = {}
    for place, memory in enumerate(memories):
        places.setdefault(memory, []).append(place)
    scores: dict[int, ItemScore] = {}
    seconds = 0.0
    for memory, own in places.items():
        before = len(scores)

        def report(done: int, before: int = before) -> None:
            if on_done:
                on_done(before + done)

        result = score_suite(host, memory, [items[place] for place in own], grader, on_done=report)
        scores |= dict(zip(own, result.items, strict=True))
        seconds += result.seconds
    in_order = tuple(scores[place] for place in range(len(items)))
    return SuiteScore(sum(item.score for item in in_order) / len(in_order), in_order, seconds)
