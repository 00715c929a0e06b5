"""Training examples made of trajectories: one example for each supervised assistant turn.

A turn's prompt is everything before it, exactly as the engine would read it when serving, so memory is woven at the
same place in training and in use (`memgen.training.turns`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from memgen.config import REWARD_WEIGHTINGS
from memgen.errors import ConfigError
from memgen.experience.cue import NO_CUE, Cue
from memgen.text.profile import BaseProfile
from memgen.training.turns import LeftOut, supervised_turns


@dataclass(frozen=True)
class Example:
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    """The answer with its end-of-turn token: the supervised tokens."""
    insertions: tuple[int, ...] | None = None
    """How many target tokens stand in front of each insertion, 0 being the prompt's end; None follows the memory's
    config (`memgen.training.layout`)."""
    cue_ids: tuple[int, ...] = ()
    """A text that only the weaver reads, in front of its stream; empty is none."""
    weight: float = 1.0
    """What its loss counts by beside the other examples of a step; above 0."""
    trajectory: int | None = None
    """Which trajectory it comes from, equal ones being one; None if it stands alone."""

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)


@dataclass(frozen=True)
class ExampleSet:
    examples: tuple[Example, ...]
    skipped_long: int
    """Turns longer than the limit, not trained on."""
    skipped_weight: int
    """Turns that the trajectory marks with weight 0."""
    skipped_reward: int = 0
    """Trajectories, not turns, that were left out for their reward."""
    too_long: str = ""
    """What was too long, in words; empty if nothing was."""
    flags: tuple[str, ...] = ()
    """Signs that a training on them does not learn most of the data, in plain words; empty if none."""


def build_examples(
    profile: BaseProfile,
    trajectories: Sequence[dict[str, Any]],
    *,
    max_tokens: int,
    min_reward: float | None = None,
    reward_weighting: str = "none",
    cues: Sequence[Cue] = (),
) -> ExampleSet:
    """Examples of trajectories `{"messages": [...], "tools": [...] | None, "reward": float | None}`.

    A trajectory without a reward is a demonstration: it passes any `min_reward` and weighs 1.

    Args:
        max_tokens: longest prompt and answer together.
        min_reward: trajectories with less reward are left out.
        reward_weighting: `none`, every example weighs 1; `reward`, an example weighs its trajectory's reward, and
            trajectories with reward 0 or less are left out.
        cues: for each trajectory what the weaver reads beside all its turns; none at all is none for any.

    Raises:
        ConfigError: no such reward weighting.
    """
    if reward_weighting not in REWARD_WEIGHTINGS:
        raise ConfigError(f"reward_weighting is {reward_weighting!r}; expected one of {REWARD_WEIGHTINGS}")
    examples: list[Example] = []
    left_out, skipped_reward = LeftOut(max_tokens), 0
    numbers: dict[str, int] = {}
    for trajectory, cue in zip(trajectories, cues or [NO_CUE] * len(trajectories), strict=True):
        messages, tools, reward = trajectory["messages"], trajectory.get("tools"), trajectory.get("reward")
        weight = 1.0 if reward is None or reward_weighting == "none" else float(reward)
        if weight <= 0.0 or (reward is not None and min_reward is not None and reward < min_reward):
            skipped_reward += 1
            continue
        source = numbers.setdefault(json.dumps([messages, tools], sort_keys=True), len(numbers))
        examples += [
            Example(turn.prompt_ids, turn.answer_ids, cue_ids=cue.token_ids, weight=weight, trajectory=source)
            for turn in supervised_turns(profile, messages, tools, left_out)
        ]
    return ExampleSet(
        examples=tuple(examples),
        skipped_long=left_out.long,
        skipped_weight=left_out.weight,
        skipped_reward=skipped_reward,
        too_long=left_out.in_words(len(examples)),
        flags=left_out.flags(len(examples)),
    )


def hold_out(data: ExampleSet, share: float, seed: int) -> tuple[ExampleSet, tuple[Example, ...]]:
    """Split off the examples of a random `share` of the trajectories, at least one: (rest, held out).

    Whole trajectories: the turns of one, and its repetitions, tell much about one another.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    keys = [number if e.trajectory is None else ("trajectory", e.trajectory) for number, e in enumerate(data.examples)]
    distinct = list(dict.fromkeys(keys))
    count = max(1, round(share * len(distinct)))
    if count >= len(distinct):
        raise ConfigError(
            f"held_out_share {share} of {len(distinct)} trajectories leaves none to train on; lower it, or give more"
        )
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed)).tolist()
    held = {distinct[place] for place in order[:count]}
    rest = tuple(e for e, key in zip(data.examples, keys, strict=True) if key not in held)
    return replace(data, examples=rest), tuple(e for e, key in zip(data.examples, keys, strict=True) if key in held)
