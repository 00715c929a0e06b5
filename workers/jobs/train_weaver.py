"""The job `train_weaver`: snapshot the data, train, store the artifact, register the version, evaluate, judge.

Every stage looks first whether it was done, so a job that is delivered twice or taken up by another worker goes on
where the last attempt was.
"""

import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from memgen.artifacts.artifact import MOMENTS_FILE
from memgen.artifacts.report import TrainingReport
from memgen.checked_files import check_files
from memgen.config import GrpoConfig, MemoryConfig, TrainingConfig
from memgen.errors import ArtifactMismatch
from memgen.experience.insights import written_insights
from memgen.experience.pool import Insight
from memgen.routing.isolated import Isolated, with_task
from memgen.training.checkpoint import read_moments
from memgen.training.examples import Example, build_examples
from memgen.training.optimizing import StepReport
from memgen.training.weaver.sft import train_weaver
from registry import jobs
from registry.database import transaction
from registry.datasets import snapshots
from registry.datasets.snapshots import Snapshot
from registry.errors import ObjectNotFound
from registry.gates.baseline import tasks_at_stake
from registry.job_params import Method, PlayedEnvironment, TrainWeaver
from registry.models import Adapter, Dataset, Job, Task, Version
from registry.tasks import get_task
from registry.trajectories.holdout import find_shared_prefix_group
from registry.versions.ancestry import learned_tasks, lineage
from registry.versions.records import get_version, version_of_job
from registry.versions.state import check_parent
from workers.checkpoints import Checkpoint
from workers.datasets import dataset_of, lines_of
from workers.experience import remember, training_cues
from workers.methods import Lesson, train_watched
from workers.model import Model
from workers.registration import Send, conclude, register
from workers.runner import Running
from workers.weaver_reward import config_of, reward_lesson, snapshot_of


@dataclass(frozen=True)
class _Plan:
    """What the job's row and lineage say."""

    project_id: uuid.UUID
    adapter: Adapter
    task: Task
    parent: Version | None
    start: Version | None
    """Whose weights and optimizer it goes on from: the parent or, with strategy `isolated`, the newest ancestor that
    learned this very task."""
    earlier_tasks: tuple[Task, ...]
    """Whose items may be replayed."""
    replay_share: float
    method: Method
    config: TrainingConfig | GrpoConfig
    environment: PlayedEnvironment | None
    """Where items to play come from, if not from the task's trajectories."""
    min_reward: float
    insights: tuple[Insight, ...]
    """That somebody wrote, for the weaver's cues."""
    trained: Version | None
    """The version, if an earlier attempt registered it."""


def train(running: Running, model: Model, send: Send | None = None) -> dict[str, Any]:
    """Returns `{"version", "gate", "scores", "retry"}`; `retry` is the job that trains once more, if there is one.

    Args:
        send: sends a job to the workers; without it the reaper does.
    """
    plan = _plan(running)
    model.check_base(plan.adapter)
    return conclude(running, model, plan.trained or _train_version(running, model, plan), send)


def _plan(running: Running) -> _Plan:
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, TrainWeaver)
        parent = get_version(session, adapter, request.parent) if request.parent else None
        task = get_task(session, job.project_id, request.task)
        isolated = adapter.strategy == "isolated"
        earlier = () if isolated else tuple(t for t in learned_tasks(session, parent) if t.id != task.id)
        taught = [v for v in lineage(session, parent) if v.dataset.task_id == task.id] if isolated else [parent]
        start, trained = taught[-1] if taught else None, version_of_job(session, job.id)
        if trained is None:  # its parent was fit when the job was made; data may have been deleted since
            for version in (parent, start):
                check_parent(session, version)
        return _Plan(
            project_id=job.project_id,
            adapter=adapter,
            task=task,
            parent=parent,
            start=start,
            earlier_tasks=earlier,
            replay_share=adapter.replay_share if request.replay_share is None else request.replay_share,
            method=request.method,
            config=config_of(request.method, request.training),
            environment=request.environment,
            min_reward=request.min_reward,
            insights=written_insights(task.name, request.insights),
            trained=trained,
        )


def _train_version(running: Running, model: Model, plan: _Plan) -> Version:
    _warn_of_shared_prefix(running, plan.task)
    dataset = dataset_of(running, lambda session: _snapshot(session, plan))
    lines = lines_of(running, dataset)
    with tempfile.TemporaryDirectory(prefix="memgen-job-") as folder:
        name = f"job_{running.job_id.hex}"
        artifact = Path(folder) / "artifact"
        artifact.mkdir()
        _new_memory(model, plan, name)
        try:
            remember(
                running,
                model.host,
                name,
                lines,
                min_reward=plan.min_reward,
                open_alike=[task.name for task in (plan.task, *plan.earlier_tasks) if task.shared_turns],
                written=plan.insights,
            )
            if isinstance(plan.config, TrainingConfig):
                lesson = _sft_lesson(running, model, plan, name, plan.config, dataset, lines)
            else:
                lesson = reward_lesson(running, model, name, plan.method, plan.config, dataset, lines)
            if plan.adapter.strategy == "isolated":
                _isolated(model, plan, lesson.examples).save(artifact)
            checkpoint = Checkpoint(running, Path(folder) / "checkpoint.safetensors")
            report = lesson.train(name, checkpoint, artifact)
            version = register(running, model, plan.adapter, plan.parent, name, artifact, report)
            checkpoint.delete()
        finally:
            model.host.remove(name)
    return version


def _warn_of_shared_prefix(running: Running, task: Task) -> None:
    """Most of a task on one side: scores of the gate, or what is learned, say little."""
    with transaction(running.services.sessions) as session:
        group = find_shared_prefix_group(session, task)
    if group is not None:
        running.event(str(group), {"task": task.name, "alike": group.count, "of": group.total}, level="warning")


def _sft_lesson(
    running: Running,
    model: Model,
    plan: _Plan,
    memory: str,
    config: TrainingConfig,
    dataset: Dataset,
    lines: Sequence[dict[str, Any]],
) -> Lesson:
    """Demonstrations to imitate, beside what the memory remembers of others."""
    data = build_examples(
        model.host.backbone.tokenizer,
        lines,
        max_tokens=min(config.max_example_tokens, model.host.longest_example(memory)),
        reward_weighting=config.reward_weighting,
        cues=training_cues(model.host, memory, lines),
    )
    running.event(
        f"training on {len(data.examples)} turns of {len(lines)} trajectories",
        {
            **dataset.manifest,
            "skipped_long": data.skipped_long,
            "skipped_weight": data.skipped_weight,
            "skipped_reward": data.skipped_reward,
        },
    )

    def train(name: str, checkpoint: Checkpoint, artifact: Path) -> TrainingReport:
        moments = _moments(running, model, plan, name, artifact.parent / "moments")
        training = partial(train_weaver, data=data, config=config, moments=moments, moments_out=artifact / MOMENTS_FILE)
        told = partial(_on_step, running)
        return train_watched(running, model, name, training, checkpoint, devices=config.devices, on_step=told)

    return Lesson(data.examples, train)


def _snapshot(session: Session, plan: _Plan) -> Snapshot:
    if plan.method == Method.SFT:
        return snapshots.snapshot(
            session,
            plan.project_id,
            plan.task,
            earlier_tasks=plan.earlier_tasks,
            replay_share=plan.replay_share,
            min_reward=plan.min_reward,
            seed=plan.config.seed,
        )
    return snapshot_of(
        session,
        plan.method,
        plan.project_id,
        plan.task,
        environment=plan.environment,
        earlier_tasks=plan.earlier_tasks,
        judged_by=tasks_at_stake(session, plan.adapter, plan.parent, plan.task),
        replay_share=plan.replay_share,
        min_reward=plan.min_reward,
        seed=plan.config.seed,
    )


def _isolated(model: Model, plan: _Plan, examples: Sequence[Example]) -> Isolated:
    """What the version will hold for each task: before training, because a task may be too small to be recognised."""
    parent = plan.parent
    known = model.isolated_of(parent) if parent else None
    if parent is not None and known is None:
        raise ArtifactMismatch(
            f"{plan.adapter.name}@{parent.number} has no memories by task, as strategy 'isolated' needs of a parent; "
            "train with parent 0"
        )
    artifact_hash = parent.artifact_hash if parent else None
    return with_task(known, artifact_hash, model.host.backbone, plan.task.name, examples)


def _new_memory(model: Model, plan: _Plan, name: str) -> None:
    """A fresh memory, or earlier weights to go on from."""
    memory = model.host.create(name, MemoryConfig.from_mapping(plan.adapter.memory), seed=plan.config.seed)
    if plan.start is not None:
        model.host.copy(model.memory_of(plan.start), memory.name)


def _moments(running: Running, model: Model, plan: _Plan, name: str, folder: Path) -> Path | None:
    """The optimizer's state that belongs to the weights which training starts with, if it was kept and fits."""
    start, store = plan.start, running.services.store
    if start is None:
        return None
    folder.mkdir()
    path = folder / MOMENTS_FILE
    try:
        for file in (MOMENTS_FILE, "manifest.json"):
            store.get_file(f"{start.artifact_key}/{file}", folder / file)
        check_files(folder, start.artifact_hash, only=[MOMENTS_FILE])
        read_moments(path, model.host.memories[name].weaver_parameters())
    except (ObjectNotFound, ArtifactMismatch) as error:
        running.event(f"the optimizer begins anew: {error}", {"version": start.number})
        return None
    running.event(f"weights and optimizer go on from {plan.adapter.name}@{start.number}", {"version": start.number})
    return path


def _on_step(running: Running, step: StepReport) -> None:
    running.progress(
        "train",
        {
            "step": step.step,
            "steps": step.steps,
            "loss": round(step.loss, 4),
            "tokens_per_second": round(step.tokens_per_second, 1),
            "seconds_left": round(step.seconds_left, 1),
        },
        last=step.step == step.steps,
    )
