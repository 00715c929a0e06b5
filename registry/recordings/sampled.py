"""What a trajectory keeps of its turns as they were sampled. Pure; `registry.recordings.call.SampledAnswer` says what
each field means.

A list with an entry for each assistant message, null for one of which nothing is known. The prompt of a turn begins, as
a rule, with all that the turn before read and wrote. So an entry has `prompt_kept`, how many of those tokens it begins
with, and in `prompt_ids` only what follows them: a run of many turns does not cost the square of its length.
"""

from collections.abc import Sequence
from typing import Any

from registry.models import RunTurn


def sampled_turns(turns: Sequence[RunTurn]) -> list[Any] | None:
    """The list of a run's turns; None if nothing is known of any."""
    entries: list[Any] = []
    before: list[int] = []
    for turn in turns:
        written = [message for message in turn.messages if message["role"] == "assistant"]
        entries += [None] * (len(written) - 1)
        if turn.sampled is None:
            entries.append(None)
            continue
        prompt = turn.sampled["prompt_ids"]
        kept = _shared(before, prompt)
        entries.append({**turn.sampled, "model": turn.model, "prompt_kept": kept, "prompt_ids": prompt[kept:]})
        before = [*prompt, *turn.sampled["token_ids"]]
    return entries if any(entry is not None for entry in entries) else None


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with. For `[1, 2, 3]` and `[1, 2, 4]`: 2."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
