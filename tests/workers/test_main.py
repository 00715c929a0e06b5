"""The tables of what runs each kind of job, and of what reads the settings of each method."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from api.endpoints import job_bodies
from registry.job_requests import BOOKKEEPING, JobKind, Method
from registry.settings import Settings
from registry.wiring import open_services
from tests.workers.conftest import Workshop
from workers import methods


def test_every_kind_of_job_has_a_handler_with_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGEN_BROKER_URL", "redis://localhost:1/0")
    main = importlib.import_module("workers.main")
    model: Any = object()
    handlers = main.make_handlers(model)
    assert set(handlers) == set(JobKind) - set(BOOKKEEPING)
    modules = {kind: handler.func.__module__ for kind, handler in handlers.items()}
    assert modules == {kind: f"workers.jobs.{kind}" for kind in handlers}


def test_a_method_means_the_same_settings_to_the_api_and_to_the_workers() -> None:
    assert set(methods.CONFIGS) == set(Method)
    assert dict(job_bodies.CONFIGS) == dict(methods.CONFIGS)


def test_where_the_base_is_refused_every_job_fails_with_the_reason(
    workshop: Workshop, settings: Settings, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMGEN_BROKER_URL", "redis://localhost:1/0")
    main = importlib.import_module("workers.main")
    refused = Path(shutil.copytree(tiny_base, tmp_path / "refused"))
    (refused / "chat_template.jinja").write_text("{{ raise_exception('only pictures') }}")
    workshop.add_task("yes")
    jobs = [workshop.queue("yes"), workshop.queue("yes")]
    with open_services(settings.model_copy(update={"base_model": str(refused)})) as services:
        monkeypatch.setattr(main._Process, "services", services)
        monkeypatch.setattr(main._Process, "handlers", None)
        for job in jobs:
            main.run_job(str(job))
    for job in jobs:
        assert workshop.job(job).state == "failed"
        assert "only pictures" in (workshop.job(job).error or "")
