"""Groups for off-policy GRPO out of uploaded trajectories: several of one prompt, with different rewards.

A trajectory that was recorded here brings its turns as they were sampled, and those are read as they are, whatever
their words (`memgen.training.reward.sampled_turns`). Other turns are spelled in tokens anew.

An uploaded trajectory may bring the log probabilities of what its policy wrote, as `metadata["logprobs"]`: a list with
an entry for each assistant turn, null for a turn without. An entry is a list of natural logarithms, one a token of this
model's tokenizer, or a choice's `logprobs` as OpenAI's chat and ours give them. The end-of-turn token's comes last and
may be missing, as it is there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memgen.experience.cue import NO_CUE, Cue
from memgen.text.profile import BaseProfile
from memgen.training.reward.rollouts import Group, RolledTurn, Rollout
from memgen.training.reward.sampled_turns import SampledTurn, TrainedPolicy, sampled_turns
from memgen.training.turns import LeftOut, supervised_turns

_LEAST = -50.0
"""No policy draws what is as unlikely: such a number stands for one that was not known."""


@dataclass(frozen=True)
class RecordedGroups:
    groups: tuple[Group, ...]
    """In the order of their first trajectories."""
    skipped_rewardless: int
    """Trajectories without a reward."""
    skipped_empty: int
    """Trajectories of which no turn is left to train on."""
    skipped_alone: int
    """Trajectories that are the only one left of their prompt."""
    skipped_long: int
    """Turns longer than the limit."""
    skipped_weight: int
    """Turns that the trajectory marks with weight 0."""
    unfit_logprobs: int
    """Turns whose logprobs are not one number from -50 to 0 for each token; they count as unknown."""
    too_long: str = ""
    """What was too long, in words; empty if nothing was."""
    flags: tuple[str, ...] = ()
    """Signs that a training on them does not learn most of the data, in plain words; empty if none."""


def groups_of_trajectories(
    profile: BaseProfile,
    trajectories: Sequence[dict[str, Any]],
    *,
    max_tokens: int,
    cues: Sequence[Cue] = (),
    shared_turns: Mapping[str, int] | None = None,
    policy: TrainedPolicy | None = None,
) -> RecordedGroups:
    """Group trajectories of one task whose tools, and messages in front of the first assistant turn, are the same.

    Args:
        trajectories: `{"messages": [...], "tools": [...] | None, "reward": float | None}`, and where known
            `trajectory_id`, `task`, `metadata`.
        max_tokens: longest prompt and answer together of a turn.
        cues: for each trajectory what the weaver reads beside all its turns; none at all is none for any.
        shared_turns: by task, how many assistant turns all of its conversations begin with. Those are part of the
            prompt; 0 for a task that is not named.
        policy: what is trained; None spells all turns anew.
    """
    by_prompt: dict[str, list[Rollout]] = {}
    rewardless = empty = kept = unfit = 0
    left_out = LeftOut(max_tokens)
    for number, (trajectory, cue) in enumerate(zip(trajectories, cues or [NO_CUE] * len(trajectories), strict=True)):
        if trajectory.get("reward") is None:
            rewardless += 1
            continue
        sampled = sampled_turns(trajectory, policy) if policy is not None else {}
        turns, unfit_here = _turns(profile, trajectory, cue.token_ids, left_out, sampled)
        kept, unfit = kept + len(turns), unfit + unfit_here
        rollout = Rollout(
            item_id=str(trajectory.get("trajectory_id", number)),
            task=trajectory.get("task") or "",
            turns=turns,
            reward=float(trajectory["reward"]),
        )
        if rollout.turns:
            shared = (shared_turns or {}).get(rollout.task, 0)
            by_prompt.setdefault(_prompt_key(trajectory, shared), []).append(rollout)
        else:
            empty += 1
    groups = tuple(Group(tuple(rollouts)) for rollouts in by_prompt.values() if len(rollouts) > 1)
    return RecordedGroups(
        groups=groups,
        skipped_rewardless=rewardless,
        skipped_empty=empty,
        skipped_alone=len(by_prompt) - len(groups),
        skipped_long=left_out.long,
        skipped_weight=left_out.weight,
        unfit_logprobs=unfit,
        too_long=left_out.in_words(kept),
        flags=left_out.flags(kept),
    )


def _turns(
    profile: BaseProfile,
    trajectory: dict[str, Any],
    cue_ids: tuple[int, ...],
    left_out: LeftOut,
    sampled: Mapping[int, SampledTurn],
) -> tuple[tuple[RolledTurn, ...], int]:
    """(turns to learn from, how many of them have unfit logprobs)."""
    turns: dict[int, RolledTurn] = {}
    for ordinal, turn in sampled.items():
        if len(turn.prompt_ids) + len(turn.token_ids) > left_out.max_tokens:
            left_out.long += 1
            continue
        turns[ordinal] = RolledTurn(
            turn.prompt_ids, turn.token_ids, turn.logprobs, turn.decisions, cue_ids, turn.importance
        )
    logged = (trajectory.get("metadata") or {}).get("logprobs")
    messages, unfit = _without(trajectory["messages"], sampled), 0
    for spelled in supervised_turns(profile, messages, trajectory.get("tools"), left_out):
        logprobs = _logprobs(logged, spelled.ordinal, len(spelled.answer_ids))
        unfit += logprobs is None
        turns[spelled.ordinal] = RolledTurn(spelled.prompt_ids, spelled.answer_ids, logprobs or (), (), cue_ids)
    left_out.weight -= len(sampled)  # they were not left out
    return tuple(turns[ordinal] for ordinal in sorted(turns)), unfit


def _without(messages: Sequence[dict[str, Any]], sampled: Mapping[int, SampledTurn]) -> list[dict[str, Any]]:
    """The messages, of which the sampled turns are not to be spelled."""
    unsampled, ordinal = [], -1
    for message in messages:
        ordinal += message["role"] == "assistant"
        is_sampled = message["role"] == "assistant" and ordinal in sampled
        unsampled.append({**message, "weight": 0} if is_sampled else message)
    return unsampled


def _logprobs(logged: object, turn: int, tokens: int) -> tuple[float, ...] | None:
    """A turn's logged values; none if there are none, None if they do not fit."""
    if logged is None:
        return ()
    if not isinstance(logged, list):
        return None
    values = _plain(logged[turn]) if turn < len(logged) else None
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) not in (tokens, tokens - 1):
        return None
    fit = all(isinstance(v, int | float) and not isinstance(v, bool) and _LEAST <= v <= 0 for v in values)
    return tuple(float(v) for v in values) if fit else None


def _plain(logged: object) -> object:
    """The numbers of a turn that was logged in OpenAI's shape, `{"content": [{"token", "logprob", ...}, ...]}`."""
    listed = logged.get("content") if isinstance(logged, dict) else logged
    if not isinstance(listed, list):
        return listed
    return [token.get("logprob") if isinstance(token, dict) else token for token in listed]


def _prompt_key(trajectory: dict[str, Any], shared_turns: int) -> str:
    messages = trajectory["messages"]
    turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    first = turns[shared_turns] if len(turns) > shared_turns else len(messages)
    return json.dumps([trajectory.get("task"), messages[:first], trajectory.get("tools") or None], sort_keys=True)
