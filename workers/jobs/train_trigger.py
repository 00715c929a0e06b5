"""The job `train_trigger`: teach the trigger of a version when to weave; its weaver stays as it is, to the byte.

As in `workers.jobs.train_weaver`, every stage first looks whether it was done.
"""

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from memgen.artifacts.artifact import MOMENTS_FILE
from memgen.config import MemoryConfig, TriggerConfig
from memgen.tasks.task import TaskItem
from memgen.training.trigger.grpo import train_trigger
from memgen.training.trigger.report import TriggerReport, TriggerStep
from registry import jobs
from registry.database import transaction
from registry.datasets import reward_snapshots
from registry.datasets.manifest import TrainedPart, manifest_of
from registry.datasets.snapshots import Snapshot
from registry.errors import ObjectNotFound
from registry.gates.baseline import tasks_at_stake
from registry.job_requests import PlayedEnvironment, TrainTrigger
from registry.models import Adapter, Job, JsonObject, Task, Version
from registry.tasks import get_task
from registry.versions.records import get_version, version_of_job
from registry.versions.state import check_parent
from registry.wording import counted
from workers.checkpoints import Checkpoint
from workers.datasets import dataset_of, lines_of
from workers.methods import train_watched, warn_of_failures
from workers.model import Model
from workers.registration import judge, register
from workers.reward_items import games_folder, items_of, warn_of_unfit, with_reward
from workers.runner import Running
from workers.workspace import Workspace, open_workspace


@dataclass(frozen=True)
class TriggerTarget:
    """What a job trains: by its row and its parent."""

    adapter: Adapter
    parent: Version
    task: Task
    """The task that the parent was trained for, and so the new version."""


@dataclass(frozen=True)
class TriggerRecipe:
    """How a job trains: settings, and which items are played."""

    config: TriggerConfig
    tasks: tuple[Task, ...]
    """Tasks to play; more than the memory was made for are welcome."""
    environment: PlayedEnvironment | None
    min_reward: float


def run(running: Running, model: Model) -> dict[str, Any]:
    """Returns `{"version", "gate", "scores"}`."""
    target, recipe, version = _read(running)
    model.check_base(target.adapter)
    if version is None:
        items = _items(running, target, recipe)
        memory = MemoryConfig.from_mapping(target.adapter.memory)
        with open_workspace(running, model, memory, seed=recipe.config.seed, start=target.parent) as workspace:
            _keep_what_stays(running, model, target, workspace.artifact)
            checkpoint = Checkpoint(running, workspace.checkpoint)
            report = _train(running, model, recipe.config, items, workspace, checkpoint)
            version = register(running, model, target.adapter, target.parent, workspace, report)
            checkpoint.delete()
    return judge(running, model, version)


def _read(running: Running) -> tuple[TriggerTarget, TriggerRecipe, Version | None]:
    """What to train, how, and the version, if an earlier attempt registered it."""
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, TrainTrigger)
        parent, version = get_version(session, adapter, request.parent or 0), version_of_job(session, job.id)
        if version is None:  # it was fit when the job was made; data may have been deleted since
            check_parent(session, parent)
        recipe = TriggerRecipe(
            config=TriggerConfig.from_mapping(request.training),
            tasks=tuple(get_task(session, job.project_id, name) for name in request.tasks),
            environment=request.environment,
            min_reward=request.min_reward,
        )
        return TriggerTarget(adapter=adapter, parent=parent, task=parent.dataset.task), recipe, version


def _items(running: Running, target: TriggerTarget, recipe: TriggerRecipe) -> dict[str, list[TaskItem]]:
    """Items to play by task, of the job's dataset."""
    tasks = with_reward(running, recipe.tasks)
    dataset = dataset_of(running, lambda session: _snapshot(session, target, recipe, tasks))
    lines = lines_of(running, dataset)
    manifest = manifest_of(dataset)
    warn_of_unfit(running, manifest, lines)
    items = items_of(manifest, lines, games_folder(running), should_stop=running.stop.is_set)
    counts = {task: len(played) for task, played in items.items()}
    running.event(f"playing {counted(sum(counts.values()), 'item')}", {**dataset.manifest, "items": counts})
    return items


def _train(
    running: Running,
    model: Model,
    config: TriggerConfig,
    items: dict[str, list[TaskItem]],
    workspace: Workspace,
    checkpoint: Checkpoint,
) -> TriggerReport:
    report = train_watched(
        running,
        model,
        workspace.memory,
        partial(train_trigger, items=items, config=config),
        checkpoint,
        devices=config.devices,
        on_step=partial(on_step, running),
    )
    warn_of_failures(running, report.failures)
    _report_rates(running, report)
    return report


def _snapshot(session: Session, target: TriggerTarget, recipe: TriggerRecipe, tasks: tuple[Task, ...]) -> Snapshot:
    project_id, seed = target.adapter.project_id, recipe.config.seed
    if recipe.environment is not None:
        judges = tasks_at_stake(session, target.adapter, target.parent, target.task)
        return reward_snapshots.environment_snapshot(
            project_id, target.task, recipe.environment, judged_by=judges, trains=TrainedPart.TRIGGER, seed=seed
        )
    return reward_snapshots.trigger_snapshot(
        session, project_id, target.task, tasks, min_reward=recipe.min_reward, seed=seed
    )


def _keep_what_stays(running: Running, model: Model, target: TriggerTarget, artifact: Path) -> None:
    """Copy the parent's memories of other tasks, and its weaver's optimizer, which the weaver's next training needs."""
    isolated = model.isolated_of(target.parent)
    if isolated is not None:
        isolated.save(artifact)
    with contextlib.suppress(ObjectNotFound):  # versions of trainings from reward have none
        running.services.store.get_file(f"{target.parent.artifact_key}/{MOMENTS_FILE}", artifact / MOMENTS_FILE)


def _report_rates(running: Running, report: TriggerReport) -> None:
    for task, decisions in report.by_task.items():
        rate = (
            "had no decision to make"
            if decisions.rate is None
            else f"wove at {100 * decisions.rate:.1f}% of the decision points"
        )
        data: JsonObject = {
            "asked": decisions.asked,
            "invoked": decisions.invoked,
            "interval": list(decisions.interval),
        }
        running.event(f"{task}: the trigger {rate} at last", data)


def on_step(running: Running, step: TriggerStep) -> None:
    """Report a step as the job's progress."""
    running.progress(
        "train",
        {
            "step": step.step,
            "steps": step.steps,
            "reward": round(step.reward, 4),
            "penalised_reward": round(step.penalised_reward, 4),
            "groups": step.groups,
            "groups_skipped": step.groups_skipped,
            "invoked": round(step.invoked, 4),
            "entropy": round(step.entropy, 4),
            "loss": round(step.loss, 4),
            "seconds_left": round(step.seconds_left, 1),
        },
        last=step.step == step.steps,
    )
