"""Training of a weaver from reward by GRPO (MemGen, arXiv 2509.24704, section 3.3; the algorithm: arXiv 2402.03300).

Every step draws rollouts from the memory as it is, compares each with the others of its item, and takes one or more
optimizer steps on them. The trigger decides as it would when serving and is not trained. Groups may also be given:
recorded ones, which another policy has drawn.

Items and seeds depend only on the step, so a run killed at any step goes on from its checkpoint as if it had not been.
Groups whose rewards are all equal teach nothing and are skipped, also from the losses' denominators and the KL term.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from memgen.backbone.prompt_cache import PromptCache
from memgen.config import GrpoConfig
from memgen.errors import NothingToTrain
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import TaskItem
from memgen.training.devices import ALONE, Devices
from memgen.training.forward import PrefixStore
from memgen.training.reward.loop import drawn_of_step, play_together
from memgen.training.reward.losses import has_spread
from memgen.training.reward.rollouts import Group, roll_out, seed_of
from memgen.training.weaver.grpo_run import Batch, GrpoReport, GrpoStep, run_grpo


def train_weaver_grpo(
    host: AdapterHost,
    memory: str,
    items: Sequence[TaskItem],
    config: GrpoConfig,
    *,
    task: str = "",
    devices: Devices = ALONE,
    checkpoint: Path | None = None,
    checkpoint_interval_seconds: float = 30.0,
    on_checkpoint: Callable[[Path], None] | None = None,
    on_step: Callable[[GrpoStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> GrpoReport:
    """Train the weaver of the memory named `memory` in place, by playing `items` with it.

    Args:
        task: name noted with each rollout.
        devices: of the processes that all call this with equal arguments and equal weights
            (`memgen.training.several_devices` starts them); the first one saves and reports.
        checkpoint: file to save the state to while training, and to go on from if it exists. A run goes on from the
            weights in it, whatever the memory's are.
        on_checkpoint: called with that file each time it was written.
        should_stop: asked while rollouts are drawn; true ends the run with the state of the last whole step saved.

    Raises:
        NothingToTrain: there are no items.
        ConfigError: the memory's trigger never weaves, or a number of devices other than the config's.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `should_stop` said so.
    """
    if not items:
        raise NothingToTrain("there are no items to play; give at least one")
    sampling = Sampling(
        config.max_new_tokens, temperature=config.temperature, trigger_temperature=config.trigger_temperature
    )

    def played(step: int) -> Batch:
        prompts = PromptCache(host.backbone.decoder, config.prompt_cache_bytes)
        chosen = drawn_of_step(len(items), config.items_per_step, config.seed, step)

        def play(places: range) -> list[Group]:
            return roll_out(
                host,
                memory,
                [items[chosen[place]] for place in places],
                sampling,
                group_size=config.group_size,
                task=task,
                seed=seed_of(config.seed, step),
                first=places.start,
                prompts=prompts,
                batch_size=config.rollout_batch_size,
                should_stop=should_stop,
            )

        return play_together(devices, len(chosen), play), prompts

    report = run_grpo(
        host,
        memory,
        config,
        played,
        keeps_start=config.kl_coefficient > 0,
        checkpoint=checkpoint,
        checkpoint_interval_seconds=checkpoint_interval_seconds,
        on_checkpoint=on_checkpoint,
        on_step=on_step,
        should_stop=should_stop,
        devices=devices,
    )
    return replace(report, flags=(*report.flags, *_reward_flags(report.rewards)))


def train_weaver_on_groups(
    host: AdapterHost,
    memory: str,
    groups: Sequence[Group],
    config: GrpoConfig,
    *,
    devices: Devices = ALONE,
    checkpoint: Path | None = None,
    checkpoint_interval_seconds: float = 30.0,
    on_checkpoint: Callable[[Path], None] | None = None,
    on_step: Callable[[GrpoStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> GrpoReport:
    """Train the weaver of the memory named `memory` in place on recorded groups
    (`memgen.training.reward.recorded_groups`).

    A step takes `items_per_step` of them; `group_size` is not used. The ratio is that of the policy being trained to
    the one that drew the tokens, by the turn's logprobs, which must be of `softmax(logits / config.temperature)`.
    Turns without any are taken as drawn from the memory as it was at the start.

    Arguments and errors are those of `train_weaver_grpo`; NothingToTrain means that no group has a spread of rewards.
    """
    spread = [group for group in groups if has_spread(group.rewards)]
    if not spread:
        raise NothingToTrain(f"none of {len(groups)} groups has rewards that differ; there is nothing to compare")
    asked = [[turn.prompt_ids[:-1] for rollout in group.rollouts for turn in rollout.turns] for group in groups]
    prompts = PrefixStore(host.backbone, config.prompt_cache_bytes, asked)

    def recorded(step: int) -> Batch:
        return [groups[n] for n in drawn_of_step(len(groups), config.items_per_step, config.seed, step)], prompts

    logged = all(turn.logprobs for group in spread for rollout in group.rollouts for turn in rollout.turns)
    return run_grpo(
        host,
        memory,
        config,
        recorded,
        keeps_start=config.kl_coefficient > 0 or not logged,
        checkpoint=checkpoint,
        checkpoint_interval_seconds=checkpoint_interval_seconds,
        on_checkpoint=on_checkpoint,
        on_step=on_step,
        should_stop=should_stop,
        devices=devices,
    )


def _reward_flags(rewards: Sequence[float]) -> tuple[str, ...]:
    window = max(1, len(rewards) // 5)
    first, last = fmean(rewards[:window]), fmean(rewards[-window:])
    if len(rewards) >= 2 * window and last <= first:
        return (f"the reward did not rise: {first:.3f} at first, {last:.3f} at last",)
    return ()
