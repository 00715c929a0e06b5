"""A worker on the tiny base, in this process: the same code that Celery runs, with real servers under it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memgen.backbone.loading import find_revision
from registry import jobs
from registry.adapters import create_adapter, get_adapter
from registry.database import transaction
from registry.job_requests import Evaluate, read_request
from registry.models import Job, JobEvent, Version
from registry.settings import Settings
from registry.tasks import create_task
from registry.trajectories.imports import TokenLimit, import_batch, read_item
from registry.versions.champion import champion
from registry.wiring import Services, open_services
from workers.jobs import analyze, evaluate, train_trigger, train_weaver
from workers.model import Model
from workers.runner import Handler, run

TRAINING = {"steps": 60, "batch_size": 4, "warmup_steps": 2, "learning_rate": 0.02, "query_learning_rate": 0.02}
MEMORY = {"latents": 8, "rank": 8, "alpha": 16, "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj")}


def answers(word: str, count: int = 24) -> list[dict[str, Any]]:
    """A task that the tiny base can learn in seconds: one word, whatever is asked."""
    return [
        {"messages": [{"role": "user", "content": f"{word[0]}{n}"}, {"role": "assistant", "content": word}]}
        for n in range(count)
    ]


@dataclass
class Workshop:
    services: Services
    project_id: uuid.UUID
    handlers: dict[str, Handler]

    def add_task(
        self,
        name: str,
        items: list[dict[str, Any]] | None = None,
        grader: dict[str, Any] | None = None,
        *,
        shared_turns: int = 0,
    ) -> None:
        tokens = TokenLimit(count=lambda messages, tools: 10, max_tokens=1000)
        with transaction(self.services.sessions) as session:
            create_task(
                session,
                self.project_id,
                name,
                grader=grader or {"kind": "exact"},
                holdout_share=0.3,
                shared_turns=shared_turns,
            )
            sent = [read_item(n, item) for n, item in enumerate(answers(name) if items is None else items)]
            import_batch(session, self.project_id, sent, default_task=name, tokens=tokens)

    def queue(self, task: str, *, parent: int | None = None, training: dict[str, Any] | None = None) -> uuid.UUID:
        params = {"task": task, "parent": parent, "training": {**TRAINING, **(training or {})}}
        return self.queue_job("train_weaver", params)

    def queue_job(self, kind: str, params: dict[str, Any]) -> uuid.UUID:
        with transaction(self.services.sessions) as session:
            adapter = get_adapter(session, self.project_id, "bot")
            return jobs.create_job(session, self.project_id, read_request(kind, params), adapter).id

    def queue_evaluation(self, version: int) -> uuid.UUID:
        with transaction(self.services.sessions) as session:
            adapter = get_adapter(session, self.project_id, "bot")
            return jobs.create_job(session, self.project_id, Evaluate(version), adapter).id

    def work(self, job_id: uuid.UUID) -> Job:
        run(self.services, self.handlers, job_id, "test-worker")
        return self.job(job_id)

    def job(self, job_id: uuid.UUID) -> Job:
        with transaction(self.services.sessions) as session:
            return session.get_one(Job, job_id)

    def events(self, job_id: uuid.UUID) -> list[JobEvent]:
        with transaction(self.services.sessions) as session:
            return jobs.list_events(session, job_id, after=0, limit=1000)

    def champion(self) -> int | None:
        with transaction(self.services.sessions) as session:
            best = champion(session, get_adapter(session, self.project_id, "bot"))
            return best.number if best else None

    def versions(self) -> list[Version]:
        with transaction(self.services.sessions) as session:
            return list(session.query(Version).order_by(Version.number))


@pytest.fixture
def settings(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny_base), "checkpoint_interval_seconds": 0.01})


@contextmanager
def open_workshop(settings: Settings, project_id: uuid.UUID, adapter: str = "bot", **values: Any) -> Iterator[Workshop]:
    """A worker on the base of the settings, with an adapter of that base; `values` are the adapter's."""
    with open_services(settings) as own:
        model = Model(own)
        handlers: dict[str, Handler] = {
            "train_weaver": partial(train_weaver.run, model=model),
            "train_trigger": partial(train_trigger.run, model=model),
            "evaluate": partial(evaluate.run, model=model),
            "analyze": partial(analyze.run, model=model),
        }
        with transaction(own.sessions) as session:
            create_adapter(
                session,
                project_id,
                name=adapter,
                base_model=settings.base_model,
                base_revision=find_revision(settings.base_model, cache_dir=settings.models_dir),
                memory={**MEMORY, "target_modules": list(MEMORY["target_modules"])},
                **values,
            )
        yield Workshop(own, project_id, handlers)


@pytest.fixture
def workshop(settings: Settings, services: Services, project_id: uuid.UUID) -> Iterator[Workshop]:
    with open_workshop(settings, project_id) as opened:
        yield opened
