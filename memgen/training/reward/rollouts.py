"""Rollouts: episodes that the engine played with a memory, grouped by item, in token ids.

What training from reward needs and no more: no text, no environment. The samples of one item are a group; their
rewards are compared with one another.

The tokens' distribution is `softmax(logits / temperature)` of the whole vocabulary, and `RolledTurn.logprobs` are of
that distribution. Top-k, top-p and a repetition penalty would draw from another one, so they are refused.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from memgen.backbone.prompt_cache import PromptCache
from memgen.config import MemoryConfig, RewardConfig
from memgen.errors import Cancelled, ConfigError
from memgen.generation.episodes import DEFAULT_PLAY, Episode, PlaySettings, Turn, play
from memgen.generation.requests import Decision
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import TaskItem
from memgen.training.devices import Devices
from memgen.training.examples import Example
from memgen.training.run_control import RunControl

_PROMPT_BYTES = 2**30
MOST_FAILED = 0.2
"""Share of failed rollouts beyond which a run is flagged."""


@dataclass(frozen=True)
class RolledTurn:
    """One assistant turn as it was drawn."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The answer, with its end-of-turn token if the turn ended with one: that choice is learned too."""
    logprobs: tuple[float, ...]
    """Natural log probabilities of `token_ids` under the distribution they were drawn from. Those at the end may be
    missing, which are unknown: all of them, or the end-of-turn token's."""
    decisions: tuple[Decision, ...]
    """Every decision point, woven or not. Empty for a turn that was not played here."""
    cue_ids: tuple[int, ...] = ()
    """What the weaver read beside the context."""
    importance: tuple[float, ...] = ()
    """What each of `token_ids` counts for, where it was drawn from another distribution than the model's own
    (`memgen.training.reward.sampled_turns`); empty is 1 for all."""


@dataclass(frozen=True)
class Rollout:
    """One episode."""

    item_id: str
    task: str
    """Name of the item's task; empty if unknown."""
    turns: tuple[RolledTurn, ...]
    reward: float
    trouble: str = ""
    """What failed in its environment or grader; empty if nothing did."""

    @property
    def is_logged(self) -> bool:
        """Whether all logprobs are known."""
        return all(len(turn.logprobs) == len(turn.token_ids) for turn in self.turns)

    @property
    def tokens(self) -> int:
        """Tokens drawn, over all turns."""
        return sum(len(turn.token_ids) for turn in self.turns)


@dataclass(frozen=True)
class Group:
    """Rollouts of one item, whose rewards are compared."""

    rollouts: tuple[Rollout, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        return tuple(rollout.reward for rollout in self.rollouts)

    def of_task(self, task: str) -> "Group":
        """The same rollouts, each with the task's name."""
        return Group(tuple(replace(rollout, task=task) for rollout in self.rollouts))


@dataclass
class Failures:
    """Rollouts of a run that failed; JSON in its checkpoints."""

    count: int = 0
    last: str = ""
    """What failed in the last of them."""

    def note(self, rollouts: Sequence[Rollout]) -> None:
        for rollout in rollouts:
            if rollout.trouble:
                self.count, self.last = self.count + 1, f"item {rollout.item_id}: {rollout.trouble}"

    def flags(self, rollouts: int) -> list[str]:
        """A sign that a run of so many rollouts did not learn; none if few failed."""
        if self.count <= MOST_FAILED * rollouts:
            return []
        return [f"{self.count} of {rollouts} rollouts failed, the last at {self.last}"]


def play_step(
    host: AdapterHost,
    memory: str,
    items: Sequence[TaskItem],
    sampling: Sampling,
    config: RewardConfig,
    step: int,
    control: RunControl[Any],
) -> tuple[list[Group], PromptCache]:
    """Play the `items` of a step. Each device plays its share, and learns what the others played.

    Args:
        items: the items of the step (`places_of_step`).

    Returns:
        (a group for each item, in order; where the prompts of those that were played here were read).

    Raises:
        Cancelled: `control.should_stop` returned true, on any device.
    """
    prompts = PromptCache(host.backbone.decoder, config.prompt_cache_bytes)
    settings = PlaySettings(config.rollout_batch_size, prompts, control.should_stop)

    def play_share(share: range) -> list[Group]:
        return roll_out(
            host,
            memory,
            [items[place] for place in share],
            sampling,
            group_size=config.group_size,
            seed=seed_of(config.seed, step),
            first=share.start,
            settings=settings,
        )

    return play_together(control.devices, len(items), play_share), prompts


def play_together(devices: Devices, count: int, play_share: Callable[[range], list[Group]]) -> list[Group]:
    """The groups of a step's `count` items, in order: each device plays its share, and learns what the others played.

    Args:
        play_share: returns the groups of the items at some places.

    Raises:
        Cancelled: `play_share` raised it, on any device.
    """
    groups: list[Group] = []
    stopped = False
    try:
        groups = play_share(devices.share(count))
    except Cancelled:
        stopped = True
    if devices.any(stopped):
        raise Cancelled("stopped while rollouts were played")
    return devices.gathered(groups)


def places_of_step(count: int, per_step: int, seed: int, step: int) -> list[int]:
    """Which of `count` items a step takes: consecutive slices of one shuffled pass over them after another."""
    places = (divmod(number, count) for number in range(step * per_step, (step + 1) * per_step))
    return [_order_of_epoch(count, seed, epoch)[place] for epoch, place in places]


@functools.lru_cache(maxsize=2)
def _order_of_epoch(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return tuple(torch.randperm(count, generator=generator).tolist())


def roll_out(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[TaskItem],
    sampling: Sampling,
    *,
    group_size: int,
    seed: int,
    first: int = 0,
    settings: PlaySettings = DEFAULT_PLAY,
) -> list[Group]:
    """Play each item `group_size` times.

    Args:
        sampling: how every turn is drawn; its seed is not used. A `trigger_temperature` above 0 draws decisions too.
        seed: each (place in `items`, sample, turn) draws with a seed of its own that follows from this one.
        first: place of the first item, where these are a part of some others.
        settings: without prompts, up to 1 GiB are kept for this call, so that a group's prompt is read once.

    Returns:
        A group for each item, in order.

    Raises:
        ConfigError: `sampling` does not draw from the model's own distribution.
        Cancelled: `settings.should_stop` returned true.
    """
    if sampling.top_p < 1 or sampling.top_k or sampling.repetition_penalty != 1:
        raise ConfigError(
            f"rollouts are drawn from the model's own distribution; got top_p {sampling.top_p}, top_k "
            f"{sampling.top_k}, repetition_penalty {sampling.repetition_penalty}; expected 1, 0, 1"
        )
    sampling = replace(sampling, logprobs=True, logprob_temperature=sampling.temperature or 1.0)
    if settings.prompts is None:
        settings = replace(settings, prompts=PromptCache(host.backbone.decoder, _PROMPT_BYTES))

    def sampling_of(index: int, turn: int) -> Sampling:
        place, sample = divmod(index, group_size)
        return replace(sampling, seed=seed_of(seed, first + place, sample, turn))

    repeated = [item for item in items for _ in range(group_size)]
    episodes = play(host, memory, repeated, sampling_of, leave_one_out=True, settings=settings)
    rollouts = [_rollout(episode) for episode in episodes]
    return [Group(tuple(rollouts[n : n + group_size])) for n in range(0, len(rollouts), group_size)]


def seed_of(*numbers: int) -> int:
    """A seed that follows from some numbers and is unlike that of any others."""
    text = "/".join(map(str, numbers))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def example_of(turn: RolledTurn, config: MemoryConfig) -> Example:
    """The turn with memory woven where the engine wove it, for the training forward.

    A decision's `position` counts the tokens in front of it; form `cache` weaves in front of the newest one. Form
    `lora` learns the tokens alone, whatever was woven into them when they were drawn.
    """
    if not turn.decisions or config.form == "lora":
        return Example(turn.prompt_ids, turn.token_ids, cue_ids=turn.cue_ids)
    first = len(turn.prompt_ids) - (config.form == "cache")
    woven = tuple(decision.position - first for decision in turn.decisions if decision.invoked)
    return Example(turn.prompt_ids, turn.token_ids, woven, turn.cue_ids)


def _rollout(episode: Episode) -> Rollout:
    return Rollout(episode.item_id, "", tuple(map(_rolled, episode.turns)), episode.reward, episode.trouble)


def _rolled(turn: Turn) -> RolledTurn:
    generation = turn.generation
    tokens, logprobs = generation.token_ids, generation.logprobs or ()
    if generation.end_token is not None and generation.end_logprob is not None:
        tokens, logprobs = (*tokens, generation.end_token), (*logprobs, generation.end_logprob)
    return RolledTurn(turn.prompt_ids, tokens, logprobs, generation.decisions, turn.cue_ids)
