"""Turns as they were sampled, of trajectories that bring them: token ids, log probabilities, where memory was woven.

Nothing is tokenised anew: text does not say which tokens spelled it. A trajectory's `sampled` is a list with an entry,
or null, for each assistant turn; an entry's prompt begins with `prompt_kept` tokens of what the sampled turn before it
read and wrote, and goes on with `prompt_ids`.

Two log probabilities of a token may be known. `logprobs` are the model's own, at temperature 1: the ratio of a training
compares the policy with them, so it is 1 where nothing has changed since. `drawn_logprobs` are those of the
distribution that the token was really drawn from (temperature, penalties, top-p, grammar). Their quotient, at most
`MOST_IMPORTANCE`, weighs what the token teaches: drawn at temperature 0.7, a likely token comes more often than the
model itself would say it, and counts for less. It is 1 where nothing was moved, where the answer is greedy, for which
there is no such quotient, and where an engine does not know what it drew from.

Source: truncated importance weights as in V-trace (arXiv 1802.01561, section 4.1); a ratio to the model apart from the
correction for how it was drawn: arXiv 2110.00641, "decoupled" objective.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memgen.generation.requests import Decision

MOST_IMPORTANCE = 2.0


@dataclass(frozen=True)
class TrainedPolicy:
    """What a training must say of itself, to read sampled turns."""

    revision: str
    """Its base's: another base's token ids mean something else."""
    vocab_size: int
    form: str = "cache"
    """The memory's, by which the place of a decision counts."""
    temperature: float = 1.0
    """Sampled log probabilities are of temperature 1, and unknown at another."""


@dataclass(frozen=True)
class SampledTurn:
    ordinal: int
    """Which of the conversation's assistant turns it is, from 0."""
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """With the token that ended it, if one did."""
    logprobs: tuple[float, ...]
    """The model's own; empty if they are not known."""
    importance: tuple[float, ...]
    """What each token counts for; empty is 1 for all."""
    decisions: tuple[Decision, ...]


def sampled_turns(trajectory: Mapping[str, Any], policy: TrainedPolicy) -> dict[int, SampledTurn]:
    """The sampled turns of a trajectory, by ordinal; those of another base are left out."""
    found: dict[int, SampledTurn] = {}
    before: list[int] = []
    for ordinal, entry in enumerate(trajectory.get("sampled") or ()):
        if entry is None:
            continue
        prompt = [*before[: entry["prompt_kept"]], *entry["prompt_ids"]]
        before = [*prompt, *entry["token_ids"]]
        if str(entry["base"]).rpartition("@")[2] != policy.revision or not entry["token_ids"]:
            continue
        if not prompt or not all(0 <= token < policy.vocab_size for token in before):
            continue
        found[ordinal] = SampledTurn(
            ordinal,
            tuple(prompt),
            tuple(entry["token_ids"]),
            _known(entry["logprobs"], entry["token_ids"]) if policy.temperature == 1.0 else (),
            _importance(entry),
            _decisions(entry["decisions"], len(prompt), policy.form),
        )
    return found


def _decisions(listed: Sequence[Mapping[str, Any]], prompt_tokens: int, form: str) -> tuple[Decision, ...]:
    """As a memory of this form counts their places: the first is at the prompt's end, in front of its last token for
    form `cache`, behind it for form `embedding`."""
    decisions = [Decision(**decision) for decision in listed]
    shift = prompt_tokens - (form == "cache") - decisions[0].position if decisions else 0
    return tuple(replace(decision, position=decision.position + shift) for decision in decisions)


def _known(values: Sequence[float] | None, tokens: Sequence[int]) -> tuple[float, ...]:
    return tuple(values) if values is not None and len(values) == len(tokens) else ()


def _importance(entry: Mapping[str, Any]) -> tuple[float, ...]:
    """For a token that the model gives 0.2 and that was drawn with 0.4: 0.5."""
    own = _known(entry["logprobs"], entry["token_ids"])
    drawn = _known(entry["drawn_logprobs"], entry["token_ids"])
    if not own or not drawn:
        return ()
    most = math.log(MOST_IMPORTANCE)
    return tuple(math.exp(min(a - b, most)) for a, b in zip(own, drawn, strict=True))
