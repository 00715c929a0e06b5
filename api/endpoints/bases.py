"""`GET /v1/base`: the base that this service serves, and how it reads conversations."""

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.http.deps import Reader, ServicesDep
from api.inference.engine import InferenceEngine
from memgen.backbone.description import describe
from memgen.backbone.loading import BaseFiles, read_base
from registry.binding import ServedBase
from registry.settings import Settings
from registry.wiring import Services

router = APIRouter(prefix="/v1/base", tags=["base"])


class BaseOut(BaseModel):
    name: str
    revision: str
    """Hub commit, or hash of the weights and config.json."""
    identity: dict[str, str]
    """Hashes of what its tokenizer, chat template and generation config say."""
    context_tokens: int
    accepted: bool
    refused: str | None
    """Why the base can't be worked with."""
    profile: dict[str, Any] | None
    """What the chat template writes itself, what is spelled for it, what ends an answer."""
    example: dict[str, Any] | None
    """A small conversation with a tool, as this base reads it."""


@router.get("")
def show(request: Request, services: ServicesDep, caller: Reader) -> BaseOut:
    """The base that answers; while it is being loaded, and in a process without it, as its files are."""
    inference: InferenceEngine = request.app.state.inference
    return BaseOut(**(inference.description or describe(_files_of(services))))


def served_base(request: Request, services: Services) -> ServedBase:
    """The base that answers; while it is being loaded, and in a process without it, as its files are.

    Raises:
        ModelNotFound: there is no such base.
        BaseRefused: its chat template can't be worked with.
    """
    inference: InferenceEngine = request.app.state.inference
    if inference.base is not None:
        return inference.base
    files = _files_of(services)
    _ = files.profile  # refused now, and not at the first upload
    return ServedBase(files.name, files.revision, files.identity.to_mapping())


def _files_of(services: Services) -> BaseFiles:
    settings: Settings = services.settings
    return _read(settings.base_model, settings.base_revision, settings.models_dir)


@cache
def _read(base_model: str, revision: str, models_dir: Path) -> BaseFiles:
    """Once a process: what it serves does not change by an edit until it is started again."""
    return read_base(base_model, cache_dir=models_dir, revision=revision)
