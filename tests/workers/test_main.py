"""The table of what runs each kind of job."""

import importlib
from typing import Any

import pytest

from registry.job_params import BOOKKEEPING, JobKind


def test_every_kind_of_job_has_a_handler_with_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGEN_BROKER_URL", "redis://localhost:1/0")
    main = importlib.import_module("workers.main")
    model: Any = object()
    handlers = main.make_handlers(model)
    assert set(handlers) == set(JobKind) - set(BOOKKEEPING)
    modules = {kind: handler.func.__module__ for kind, handler in handlers.items()}
    assert modules == {kind: f"workers.jobs.{kind}" for kind in handlers}
