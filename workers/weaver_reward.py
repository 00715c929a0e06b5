"""Weavers trained from reward: `grpo` plays the dataset's questions, `grpo_recorded` compares recorded answers.

What surrounds a training (the job, its parent, registering, the gate) is in `workers.jobs.train_weaver`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from memgen.config import GrpoConfig
from memgen.errors import ConfigError
from memgen.training.examples import build_examples
from memgen.training.reward.recorded_groups import groups_of_trajectories
from memgen.training.reward.sampled_turns import TrainedPolicy
from memgen.training.several_devices import Training
from memgen.training.weaver.grpo import train_weaver_grpo, train_weaver_on_groups
from memgen.training.weaver.grpo_run import GrpoReport, GrpoStep
from registry.datasets import reward_snapshots
from registry.datasets.manifest import TrainedPart, manifest_of
from registry.datasets.snapshots import Snapshot
from registry.job_requests import Method
from registry.models import Dataset, Task
from registry.wording import counted
from workers.checkpoints import Checkpoint
from workers.experience import training_cues
from workers.methods import TrainingMethod, WeaverRecipe, WeaverTarget, train_watched, warn_of_failures, warn_of_long
from workers.model import Model
from workers.reward_items import games_folder, gives_reward, items_of, warn_of_unfit
from workers.runner import Running
from workers.workspace import Workspace


def reward_snapshot(
    session: Session, target: WeaverTarget, recipe: WeaverRecipe, judged_by: Sequence[Task]
) -> Snapshot:
    """The dataset of a training by `grpo` or `grpo_recorded`.

    The recipe's `min_reward` decides which answers are good enough to be references; recorded answers are all taken.
    An environment has items of its own, and nothing is replayed beside them.

    Args:
        judged_by: tasks whose held-out items the gate asks.

    Raises:
        EmptyDataset: the task has nothing to play, or to compare.
        ConfigError: the task's grader gives no reward.
    """
    project_id, task, seed = target.adapter.project_id, target.task, recipe.config.seed
    if recipe.method == Method.GRPO_RECORDED:
        return reward_snapshots.recorded_snapshot(
            session,
            project_id,
            task,
            earlier_tasks=target.earlier_tasks,
            replay_share=recipe.replay_share,
            seed=seed,
        )
    if recipe.environment is not None:
        return reward_snapshots.environment_snapshot(
            project_id, task, recipe.environment, judged_by=judged_by, trains=TrainedPart.WEAVER, seed=seed
        )
    if not gives_reward(task):
        raise ConfigError(f"task {task.name!r} has grader 'likelihood', which gives no reward; expected another")
    return reward_snapshots.question_snapshot(
        session,
        project_id,
        task,
        earlier_tasks=[earlier for earlier in target.earlier_tasks if gives_reward(earlier)],
        replay_share=recipe.replay_share,
        min_reward=recipe.min_reward,
        seed=seed,
    )


def reward_method(
    running: Running,
    model: Model,
    memory: str,
    method: Method,
    config: GrpoConfig,
    dataset: Dataset,
    lines: Sequence[dict[str, Any]],
) -> TrainingMethod:
    """The method `grpo` or `grpo_recorded` with a dataset, ready to be trained."""
    longest = model.host.longest_example(memory)
    examples = build_examples(model.host.backbone.profile, lines, max_tokens=longest).examples
    if method == Method.GRPO_RECORDED:
        return TrainingMethod(examples, partial(_train_recorded, running, model, config, dataset, lines))
    return TrainingMethod(examples, partial(_train_played, running, model, config, dataset, lines))


def _train_played(
    running: Running,
    model: Model,
    config: GrpoConfig,
    dataset: Dataset,
    lines: Sequence[dict[str, Any]],
    workspace: Workspace,
    checkpoint: Checkpoint,
) -> GrpoReport:
    manifest = manifest_of(dataset)
    warn_of_unfit(running, manifest, lines)
    by_task = items_of(manifest, lines, games_folder(running), should_stop=running.stop.is_set)
    items = [item for found in by_task.values() for item in found]
    counts = {task: len(found) for task, found in by_task.items()}
    running.event(f"playing {counted(len(items), 'item')}", {**dataset.manifest, "items": counts})
    # The weaver learns where it will be woven: at every point, as long as no trigger knows better.
    model.host.memories[workspace.memory].weave_until_trigger_is_trained()
    training = partial(train_weaver_grpo, items=items, config=config, task=manifest.task)
    return _watched(running, model, config, training, workspace, checkpoint)


def _train_recorded(
    running: Running,
    model: Model,
    config: GrpoConfig,
    dataset: Dataset,
    lines: Sequence[dict[str, Any]],
    workspace: Workspace,
    checkpoint: Checkpoint,
) -> GrpoReport:
    backbone = model.host.backbone
    cues = training_cues(model.host, workspace.memory, lines)
    recorded = groups_of_trajectories(
        backbone.profile,
        lines,
        max_tokens=model.host.longest_example(workspace.memory),
        cues=cues,
        shared_turns=manifest_of(dataset).shared_turns,
        policy=TrainedPolicy(
            backbone.revision,
            backbone.vocab_size,
            model.host.memories[workspace.memory].config.form,
            config.temperature,
        ),
    )
    running.event(
        f"comparing the answers of {counted(len(recorded.groups), 'group')}",
        {
            **dataset.manifest,
            "skipped_empty": recorded.skipped_empty,
            "skipped_alone": recorded.skipped_alone,
            "skipped_long": recorded.skipped_long,
            "skipped_weight": recorded.skipped_weight,
            "unfit_logprobs": recorded.unfit_logprobs,
        },
    )
    warn_of_long(running, recorded.too_long, recorded.skipped_long)
    if recorded.unfit_logprobs:
        running.event(
            f"the logprobs of {counted(recorded.unfit_logprobs, 'turn')} are not used: expected a number from "
            "-50 to 0 for each token of the answer as this base spells it, with or without its end-of-turn token",
            {"unfit_logprobs": recorded.unfit_logprobs},
            level="warning",
        )
    training = partial(train_weaver_on_groups, groups=recorded.groups, config=config)
    report = _watched(running, model, config, training, workspace, checkpoint)
    return replace(report, flags=(*report.flags, *recorded.flags))


def _watched(
    running: Running,
    model: Model,
    config: GrpoConfig,
    training: Training[GrpoReport],
    workspace: Workspace,
    checkpoint: Checkpoint,
) -> GrpoReport:
    report = train_watched(
        running,
        model,
        workspace.memory,
        training,
        checkpoint,
        devices=config.devices,
        on_step=partial(on_step, running),
    )
    warn_of_failures(running, report.failures)
    return report


def on_step(running: Running, step: GrpoStep) -> None:
    """Report a step as the job's progress."""
    running.progress(
        "train",
        {
            "step": step.step,
            "steps": step.steps,
            "reward": round(step.reward, 4),
            "groups": step.groups,
            "groups_skipped": step.groups_skipped,
            "invoked": round(step.invoked, 4),
            "loss": round(step.loss, 4),
            "seconds_left": round(step.seconds_left, 1),
        },
        last=step.step == step.steps,
    )
