"""The job `train_trigger`: teach the trigger of a version when to weave; its weaver stays as it is, to the byte.

Like `workers.jobs.train_weaver`, every stage looks first whether it was done.
"""

import contextlib
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from memgen.artifacts.artifact import MOMENTS_FILE
from memgen.config import MemoryConfig, TriggerConfig
from memgen.training.trigger.grpo import train_trigger
from memgen.training.trigger.report import TriggerReport, TriggerStep
from registry import jobs
from registry.database import transaction
from registry.datasets import reward_snapshots
from registry.datasets.manifest import Learner, manifest_of
from registry.datasets.snapshots import Snapshot
from registry.errors import ObjectNotFound
from registry.gates.baseline import tasks_at_stake
from registry.job_params import PlayedEnvironment, TrainTrigger
from registry.models import Adapter, Job, JsonObject, Task, Version
from registry.tasks import get_task
from registry.versions.records import get_version, version_of_job
from registry.versions.state import check_parent
from workers.checkpoints import Checkpoint
from workers.datasets import dataset_of, lines_of
from workers.methods import train_watched
from workers.model import Model
from workers.registration import conclude, register
from workers.reward_items import games_folder, items_of, with_reward
from workers.runner import Running


@dataclass(frozen=True)
class _Plan:
    """What the job's row and lineage say."""

    adapter: Adapter
    parent: Version
    task: Task
    """What the parent was trained for, and so the new version."""
    tasks: tuple[Task, ...]
    """To play; more than the memory was made for are welcome."""
    environment: PlayedEnvironment | None
    config: TriggerConfig
    min_reward: float
    trained: Version | None
    """The version, if an earlier attempt registered it."""


def train_trigger_of_version(running: Running, model: Model) -> dict[str, Any]:
    """Returns `{"version", "gate", "scores"}`."""
    plan = _plan(running)
    model.check_base(plan.adapter)
    return conclude(running, model, plan.trained or _train_version(running, model, plan))


def _plan(running: Running) -> _Plan:
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, TrainTrigger)
        parent, trained = get_version(session, adapter, request.parent or 0), version_of_job(session, job.id)
        if trained is None:  # it was fit when the job was made; data may have been deleted since
            check_parent(session, parent)
        return _Plan(
            adapter=adapter,
            parent=parent,
            task=parent.dataset.task,
            tasks=tuple(get_task(session, job.project_id, name) for name in request.tasks),
            environment=request.environment,
            config=TriggerConfig.from_mapping(request.training),
            min_reward=request.min_reward,
            trained=trained,
        )


def _train_version(running: Running, model: Model, plan: _Plan) -> Version:
    tasks = with_reward(running, plan.tasks)
    dataset = dataset_of(running, lambda session: _snapshot(session, plan, tasks))
    lines = lines_of(running, dataset)
    items = items_of(manifest_of(dataset), lines, games_folder(running), should_stop=running.stop.is_set)
    counts = {task: len(found) for task, found in items.items()}
    running.event(f"playing {sum(counts.values())} items", {**dataset.manifest, "items": counts})
    with tempfile.TemporaryDirectory(prefix="memgen-job-") as folder:
        name = f"job_{running.job_id.hex}"
        artifact = Path(folder) / "artifact"
        artifact.mkdir()
        _keep_what_stays(running, model, plan, artifact)
        model.host.create(name, MemoryConfig.from_mapping(plan.adapter.memory), seed=plan.config.seed)
        try:
            model.host.copy(model.memory_of(plan.parent), name)
            checkpoint = Checkpoint(running, Path(folder) / "checkpoint.safetensors")
            training, told = partial(train_trigger, items=items, config=plan.config), partial(on_step, running)
            report = train_watched(
                running, model, name, training, checkpoint, devices=plan.config.devices, on_step=told
            )
            _tell_rates(running, report)
            version = register(running, model, plan.adapter, plan.parent, name, artifact, report)
            checkpoint.delete()
        finally:
            model.host.remove(name)
    return version


def _snapshot(session: Session, plan: _Plan, tasks: tuple[Task, ...]) -> Snapshot:
    project_id, seed = plan.adapter.project_id, plan.config.seed
    if plan.environment is not None:
        judges = tasks_at_stake(session, plan.adapter, plan.parent, plan.task)
        return reward_snapshots.environment_snapshot(
            project_id, plan.task, plan.environment, judged_by=judges, trains=Learner.TRIGGER, seed=seed
        )
    return reward_snapshots.trigger_snapshot(
        session, project_id, plan.task, tasks, min_reward=plan.min_reward, seed=seed
    )


def _keep_what_stays(running: Running, model: Model, plan: _Plan, artifact: Path) -> None:
    """The parent's memories of other tasks, and its weaver's optimizer: the weaver's next training goes on with it."""
    isolated = model.isolated_of(plan.parent)
    if isolated is not None:
        isolated.save(artifact)
    with contextlib.suppress(ObjectNotFound):  # versions of trainings from reward have none
        running.services.store.get_file(f"{plan.parent.artifact_key}/{MOMENTS_FILE}", artifact / MOMENTS_FILE)


def _tell_rates(running: Running, report: TriggerReport) -> None:
    for task, found in report.by_task.items():
        rate = "was never asked" if found.rate is None else f"wove at {100 * found.rate:.1f}% of the decision points"
        data: JsonObject = {"asked": found.asked, "invoked": found.invoked, "interval": list(found.interval)}
        running.event(f"{task}: the trigger {rate} at last", data)


def on_step(running: Running, step: TriggerStep) -> None:
    """Tell how a step went."""
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
