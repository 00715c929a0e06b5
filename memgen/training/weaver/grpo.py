"""Training of a weaver from reward by GRPO (MemGen, arXiv 2509.24704, section 3.3; the algorithm: arXiv 2402.03300).

Every step draws rollouts from the memory as it is, compares each with the others of its item, and takes one or more
optimizer steps on them. The trigger decides as it would when serving and is not trained. Groups may also be
recorded ones, which another policy has drawn.

Items and seeds depend only on the step, so a run killed at any step goes on from its checkpoint as if it had not been.
Groups whose rewards are all equal are skipped, also from the losses' denominators and the KL term.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from memgen.config import GrpoConfig
from memgen.errors import NothingToTrain
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import TaskItem
from memgen.training.forward import PrefixStore
from memgen.training.reward.losses import has_spread
from memgen.training.reward.rollouts import Group, places_of_step, play_step
from memgen.training.run_control import UNWATCHED, RunControl
from memgen.training.weaver.grpo_run import GrpoBatch, GrpoReport, GrpoStep, run_grpo


def train_weaver_grpo(
    host: AdapterHost,
    memory: str,
    items: Sequence[TaskItem],
    config: GrpoConfig,
    *,
    task: str = "",
    control: RunControl[GrpoStep] = UNWATCHED,
) -> GrpoReport:
    """Train the weaver of the memory named `memory` in place, by playing `items` with it.

    Args:
        task: name noted with each rollout.

    Raises:
        NothingToTrain: there are no items.
        ConfigError: the memory's trigger never weaves, or a number of devices other than the config's.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `control.should_stop` returned true.
    """
    if not items:
        raise NothingToTrain("there are no items to play; give at least one")
    sampling = Sampling(
        config.max_new_tokens, temperature=config.temperature, trigger_temperature=config.trigger_temperature
    )

    def played(step: int) -> GrpoBatch:
        chosen = [items[n] for n in places_of_step(len(items), config.items_per_step, config.seed, step)]
        groups, prompts = play_step(host, memory, chosen, sampling, config, step, control)
        return [group.of_task(task) for group in groups], prompts

    report = run_grpo(host, memory, config, played, keeps_start=config.kl_coefficient > 0, control=control)
    return replace(report, flags=(*report.flags, *_reward_flags(report.rewards)))


def train_weaver_on_groups(
    host: AdapterHost,
    memory: str,
    groups: Sequence[Group],
    config: GrpoConfig,
    *,
    control: RunControl[GrpoStep] = UNWATCHED,
) -> GrpoReport:
    """Train the weaver of the memory named `memory` in place on recorded groups
    (`memgen.training.reward.recorded_groups`).

    A step takes `items_per_step` of them; `group_size` is not used. The ratio is that of the policy being trained to
    the one that drew the tokens, by the turn's logprobs, which must be of `softmax(logits / config.temperature)`.
    Tokens without any are taken as drawn from the memory as it was at the start.

    Errors are those of `train_weaver_grpo`; NothingToTrain means that no group has a spread of rewards.
    """
    spread = [group for group in groups if has_spread(group.rewards)]
    if not spread:
        raise NothingToTrain(f"none of {len(groups)} groups has rewards that differ; there is nothing to compare")
    passes = [[turn.prompt_ids[:-1] for rollout in group.rollouts for turn in rollout.turns] for group in groups]
    prompts = PrefixStore(host.backbone, config.prompt_cache_bytes, passes)

    def recorded(step: int) -> GrpoBatch:
        return [groups[n] for n in places_of_step(len(groups), config.items_per_step, config.seed, step)], prompts

    logged = all(rollout.is_logged for group in spread for rollout in group.rollouts)
    keeps_start = config.kl_coefficient > 0 or not logged
    return run_grpo(host, memory, config, recorded, keeps_start=keeps_start, control=control)


def _reward_flags(rewards: Sequence[float]) -> tuple[str, ...]:
    window = max(1, len(rewards) // 5)
    first, last = fmean(rewards[:window]), fmean(rewards[-window:])
    if len(rewards) >= 2 * window and last <= first:
        return (f"the reward did not rise: {first:.3f} at first, {last:.3f} at last",)
    return ()
