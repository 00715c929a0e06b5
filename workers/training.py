"""The job `train_weaver`: snapshot the data, train, store the artifact, register the version, evaluate, judge.

Every stage looks first whether it was done, so a job that is delivered twice or taken up by another worker goes on
where the last attempt was.
"""

import json
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memgen.artifact import save_artifact
from memgen.config import MemoryConfig, TrainingConfig
from memgen.training.examples import build_examples
from memgen.training.weaver_sft import StepReport, TrainingReport, train_weaver
from registry import datasets, jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import ObjectNotFound
from registry.models import Adapter, Dataset, Job, Task, Version
from registry.tasks import get_task
from registry.versions import get_version, learned_tasks, register_version, version_of_job
from workers.code_version import code_version
from workers.evaluation import score_and_judge
from workers.model import Model
from workers.runner import Running


@dataclass(frozen=True)
class _Plan:
    """What the job's row and lineage say."""

    project_id: uuid.UUID
    adapter: Adapter
    task: Task
    parent: Version | None
    earlier_tasks: tuple[Task, ...]
    config: TrainingConfig
    min_reward: float
    trained: Version | None
    """The version, if an earlier attempt registered it."""


def train(running: Running, model: Model) -> dict[str, Any]:
    """Returns `{"version", "gate", "scores"}`."""
    plan = _plan(running)
    model.check_base(plan.adapter)
    version = plan.trained or _train_version(running, model, plan)
    passed, scores = score_and_judge(running, model, version.id)
    running.event(f"gate {'passed' if passed else 'failed'}", {"version": version.number})
    return {"version": version.number, "gate": "passed" if passed else "rejected", "scores": scores}


def _plan(running: Running) -> _Plan:
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        if job.adapter is None:
            raise RuntimeError("a train_weaver job without adapter")
        params, adapter = job.params, job.adapter
        parent = get_version(session, adapter, params["parent"]) if params.get("parent") else None
        task = get_task(session, job.project_id, params["task"])
        earlier = tuple(t for t in learned_tasks(parent) if t.id != task.id)
        return _Plan(
            project_id=job.project_id,
            adapter=adapter,
            task=task,
            parent=parent,
            earlier_tasks=earlier,
            config=TrainingConfig.from_mapping(params.get("training", {})),
            min_reward=params.get("min_reward", 0.5),
            trained=version_of_job(session, job.id),
        )


def _train_version(running: Running, model: Model, plan: _Plan) -> Version:
    dataset = _dataset(running, plan)
    lines = running.services.store.get(dataset.object_key).decode().splitlines()
    data = build_examples(
        model.host.backbone.tokenizer,
        [json.loads(line) for line in lines],
        max_tokens=plan.config.max_example_tokens,
    )
    running.event(
        f"training on {len(data.examples)} turns of {len(lines)} trajectories",
        {**dataset.manifest, "skipped_long": data.skipped_long, "skipped_weight": data.skipped_weight},
    )
    with tempfile.TemporaryDirectory(prefix="memgen-job-") as folder:
        name = f"job_{running.job_id.hex}"
        _new_memory(model, plan, name)
        try:
            checkpoint = _Checkpoint(running, Path(folder) / "checkpoint.safetensors")
            report = train_weaver(
                model.host,
                name,
                data,
                plan.config,
                checkpoint=checkpoint.path,
                checkpoint_interval_seconds=running.services.settings.checkpoint_interval_seconds,
                on_checkpoint=checkpoint.upload,
                on_step=lambda step: _on_step(running, step),
                should_stop=running.stop.is_set,
            )
            version = _register(running, model, plan, name, Path(folder) / "artifact", report)
            checkpoint.delete()
        finally:
            model.host.remove(name)
    running.event(f"registered {plan.adapter.name}@{version.number}", {"flags": list(report.flags)})
    return version


def _dataset(running: Running, plan: _Plan) -> Dataset:
    """The job's dataset, made on the first attempt: bytes first, then the row."""
    services = running.services
    with transaction(services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        if job.dataset_id is not None:
            return session.get_one(Dataset, job.dataset_id)
        snapshot = datasets.snapshot(
            session,
            plan.project_id,
            plan.task,
            earlier_tasks=plan.earlier_tasks,
            replay_share=plan.adapter.replay_share,
            min_reward=plan.min_reward,
            seed=plan.config.seed,
        )
    services.store.put(snapshot.object_key, snapshot.jsonl)
    with transaction(services.sessions) as session:
        dataset = datasets.record_dataset(session, snapshot)
        jobs.set_dataset(session, running.job_id, running.attempt, dataset.id)
    return dataset


def _new_memory(model: Model, plan: _Plan, name: str) -> None:
    """A fresh memory, or the parent's weights to go on from."""
    memory = model.host.create(name, MemoryConfig.from_mapping(plan.adapter.memory), seed=plan.config.seed)
    if plan.parent is not None:
        model.host.copy(model.memory_of(plan.parent), memory.name)


class _Checkpoint:
    """The job's training state, kept in the object store so that any worker can take the job up."""

    def __init__(self, running: Running, path: Path) -> None:
        self._running = running
        self._key = f"jobs/{running.job_id}/checkpoint.safetensors"
        self.path = path
        try:
            running.services.store.get_file(self._key, path)
            running.event("continuing from the checkpoint of an earlier attempt")
        except ObjectNotFound:
            pass

    def upload(self, path: Path) -> None:
        self._running.services.store.put_file(self._key, path)

    def delete(self) -> None:
        self._running.services.store.delete(self._key)


def _register(running: Running, model: Model, plan: _Plan, name: str, folder: Path, report: TrainingReport) -> Version:
    artifact_hash = save_artifact(model.host, name, folder, report)
    prefix = f"projects/{plan.project_id}/artifacts/{artifact_hash}"
    running.services.store.put_folder(prefix, folder)
    running.check()
    with transaction(running.services.sessions) as session:
        adapter = get_adapter(session, plan.project_id, plan.adapter.name, lock=True)
        return register_version(
            session,
            session.get_one(Job, running.job_id),
            adapter,
            parent_id=plan.parent.id if plan.parent else None,
            artifact_key=prefix,
            artifact_hash=artifact_hash,
            code_version=code_version(),
            report=json.loads((folder / "report.json").read_text()),
        )


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
