"""The job `train_weaver`: snapshot the data, train, store the artifact, register the version, evaluate, judge.

Every stage first looks whether it was done, so that a job which is delivered twice, or which another worker takes up,
goes on where the last attempt was.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from memgen.artifacts.artifact import MOMENTS_FILE
from memgen.artifacts.report import TrainingReport
from memgen.checked_files import check_files
from memgen.config import MemoryConfig, TrainingConfig
from memgen.errors import ArtifactMismatch
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
from registry.job_requests import Method, TrainWeaver
from registry.models import Dataset, Job, Task, Version
from registry.tasks import get_task
from registry.trajectories.holdout import find_shared_prefix_group
from registry.versions.ancestry import ancestors_and_self, learned_tasks
from registry.versions.records import get_version, version_of_job
from registry.versions.state import check_parent
from registry.wording import counted
from workers.checkpoints import Checkpoint
from workers.datasets import dataset_of, lines_of
from workers.experience import training_cues, update_experience
from workers.methods import TrainingMethod, WeaverRecipe, WeaverTarget, train_watched, warn_of_long
from workers.model import Model
from workers.queue import Send
from workers.registration import judge, register
from workers.runner import Running
from workers.weaver_reward import reward_method, reward_snapshot
from workers.workspace import Workspace, open_workspace


def run(running: Running, model: Model, send: Send | None = None) -> dict[str, Any]:
    """Returns `{"version", "gate", "scores", "retry"}`; `retry` is the job that trains once more, if there is one.

    Args:
        send: sends a job to the workers; without it the reaper does.
    """
    target, recipe, version = _read(running)
    model.check_base(target.adapter)
    if version is None:
        _warn_of_shared_prefix(running, target.task)
        dataset = dataset_of(running, lambda session: _snapshot(session, target, recipe))
        _note_other_form(running, target)
        with open_workspace(running, model, target.memory, seed=recipe.config.seed, start=target.start) as workspace:
            method = _prepare(running, model, target, recipe, workspace, dataset)
            checkpoint = Checkpoint(running, workspace.checkpoint)
            report = method.train(workspace, checkpoint)
            version = register(running, model, target.adapter, target.parent, workspace, report)
            checkpoint.delete()
    return judge(running, model, version, send)


def _read(running: Running) -> tuple[WeaverTarget, WeaverRecipe, Version | None]:
    """What to train, how, and the version, if an earlier attempt registered it."""
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, TrainWeaver)
        parent = get_version(session, adapter, request.parent) if request.parent else None
        task = get_task(session, job.project_id, request.task)
        isolated = adapter.strategy == "isolated"
        earlier = () if isolated else tuple(t for t in learned_tasks(session, parent) if t.id != task.id)
        memory = MemoryConfig.from_mapping(adapter.memory).as_form(request.form)
        starts = (
            [v for v in ancestors_and_self(session, parent) if v.dataset.task_id == task.id] if isolated else [parent]
        )
        start = starts[-1] if starts else None
        if start is not None and start.form != memory.form:
            start = None
        version = version_of_job(session, job.id)
        if version is None:  # its parent was fit when the job was made; data may have been deleted since
            for needed in (parent, start):
                check_parent(session, needed)
        target = WeaverTarget(adapter, memory, task, parent, start, earlier)
        return target, WeaverRecipe.of(request, adapter), version


def _prepare(
    running: Running,
    model: Model,
    target: WeaverTarget,
    recipe: WeaverRecipe,
    workspace: Workspace,
    dataset: Dataset,
) -> TrainingMethod:
    """Everything in front of the training itself: the cues' experience, the examples, memories of other tasks."""
    lines = lines_of(running, dataset)
    update_experience(
        running,
        model.host,
        workspace.memory,
        lines,
        min_reward=recipe.min_reward,
        tasks_with_shared_turns=[task.name for task in (target.task, *target.earlier_tasks) if task.shared_turns],
        written=recipe.insights,
    )
    if isinstance(recipe.config, TrainingConfig):
        method = _demonstrations(running, model, target, recipe.config, workspace.memory, dataset, lines)
    else:
        method = reward_method(running, model, workspace.memory, recipe.method, recipe.config, dataset, lines)
    if target.adapter.strategy == "isolated":
        _isolated(model, target, method.examples).save(workspace.artifact)
    return method


def _note_other_form(running: Running, target: WeaverTarget) -> None:
    """Record that weights and optimizer begin anew where the parent is of another form than the version will be."""
    parent, form = target.parent, target.memory.form
    if target.start is None and parent is not None and parent.form != form:
        running.event(
            f"begins anew: {target.adapter.name}@{parent.number} is of form {parent.form!r}, and a version of form "
            f"{form!r} goes on from the weights of its own form alone",
            {"parent": parent.number, "form": form},
        )


def _warn_of_shared_prefix(running: Running, task: Task) -> None:
    """Record a warning if most of a task shares one prefix and so fell on one side of the held-out split: the gate's
    scores, or what is learned, mean little then."""
    with transaction(running.services.sessions) as session:
        group = find_shared_prefix_group(session, task)
    if group is not None:
        running.event(str(group), {"task": task.name, "alike": group.count, "of": group.total}, level="warning")


def _demonstrations(
    running: Running,
    model: Model,
    target: WeaverTarget,
    config: TrainingConfig,
    memory: str,
    dataset: Dataset,
    lines: Sequence[dict[str, Any]],
) -> TrainingMethod:
    """The method `sft` with a dataset: demonstrations to imitate, with cues from the memory's experience."""
    data = build_examples(
        model.host.backbone.profile,
        lines,
        max_tokens=min(config.max_example_tokens, model.host.longest_example(memory)),
        reward_weighting=config.reward_weighting,
        cues=training_cues(model.host, memory, lines),
    )
    running.event(
        f"training on {counted(len(data.examples), 'turn')} of {counted(len(lines), 'trajectory')}",
        {
            **dataset.manifest,
            "skipped_long": data.skipped_long,
            "skipped_weight": data.skipped_weight,
            "skipped_reward": data.skipped_reward,
        },
    )
    warn_of_long(running, data.too_long, data.skipped_long)

    def train(workspace: Workspace, checkpoint: Checkpoint) -> TrainingReport:
        moments = _moments(running, model, target, workspace)
        training = partial(
            train_weaver, data=data, config=config, moments=moments, moments_out=workspace.artifact / MOMENTS_FILE
        )
        on_step = partial(_on_step, running)
        return train_watched(running, model, memory, training, checkpoint, devices=config.devices, on_step=on_step)

    return TrainingMethod(data.examples, train)


def _snapshot(session: Session, target: WeaverTarget, recipe: WeaverRecipe) -> Snapshot:
    if recipe.method == Method.SFT:
        return snapshots.snapshot(
            session,
            target.adapter.project_id,
            target.task,
            earlier_tasks=target.earlier_tasks,
            replay_share=recipe.replay_share,
            min_reward=recipe.min_reward,
            seed=recipe.config.seed,
        )
    judged_by = tasks_at_stake(session, target.adapter, target.parent, target.task)
    return reward_snapshot(session, target, recipe, judged_by)


def _isolated(model: Model, target: WeaverTarget, examples: Sequence[Example]) -> Isolated:
    """The version's memory of each task; made before training, because a task may be too small to be recognised."""
    parent = target.parent
    known = model.isolated_of(parent) if parent else None
    if parent is not None and known is None:
        raise ArtifactMismatch(
            f"{target.adapter.name}@{parent.number} has no memories by task, as strategy 'isolated' needs of a parent; "
            "train with parent 0"
        )
    artifact_hash = parent.artifact_hash if parent else None
    return with_task(known, artifact_hash, model.host.backbone, target.task.name, examples)


def _moments(running: Running, model: Model, target: WeaverTarget, workspace: Workspace) -> Path | None:
    """The optimizer's state that belongs to the weights which training starts with, if it was kept and fits."""
    start, store = target.start, running.services.store
    if start is None:
        return None
    folder = workspace.folder / "moments"
    folder.mkdir()
    path = folder / MOMENTS_FILE
    try:
        for file in (MOMENTS_FILE, "manifest.json"):
            store.get_file(f"{start.artifact_key}/{file}", folder / file)
        check_files(folder, start.artifact_hash, only=[MOMENTS_FILE])
        read_moments(path, model.host.memories[workspace.memory].weaver_parameters())
    except (ObjectNotFound, ArtifactMismatch) as error:
        running.event(f"the optimizer begins anew: {error}", {"version": start.number})
        return None
    running.event(f"weights and optimizer go on from {target.adapter.name}@{start.number}", {"version": start.number})
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
