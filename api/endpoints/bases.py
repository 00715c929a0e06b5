"""The base that this service serves: what it is, and how it reads conversations."""

from fastapi import Request

from api.inference.server import Inference
from memgen.backbone.loading import find_identity, find_revision
from registry.binding import ServedBase
from registry.settings import Settings


def served_base(request: Request) -> ServedBase:
    """The base that answers; while it is being loaded, and in a process without it, as its files are now.

    Raises:
        ModelNotFound: there is no such base.
    """
    inference: Inference = request.app.state.inference
    if inference.base is not None:
        return inference.base
    settings: Settings = request.app.state.services.settings
    revision = find_revision(settings.base_model, cache_dir=settings.models_dir, revision=settings.base_revision)
    identity = find_identity(settings.base_model, cache_dir=settings.models_dir, revision=settings.base_revision)
    return ServedBase(settings.base_model, revision, identity.to_mapping())
