"""The tables of what runs each kind of job, and of what reads the settings of each method."""

import importlib
from typing import Any

import pytest

from api.endpoints import job_bodies
from registry.job_requests import BOOKKEEPING, JobKind, Method
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
