"""The base of a serving process: loaded by its settings, and what rows and readers know it by."""

from memgen.backbone.loading import Backbone, load_backbone, load_profile, named_dtype, prepare_process
from registry.binding import ServedBase
from registry.settings import Settings


def load_serving_base(settings: Settings) -> Backbone:
    """Raises ModelNotFound or BaseRefused; a base that can't be worked with is refused before minutes go into its
    weights."""
    prepare_process(settings.torch_threads)
    load_profile(settings.base_model, cache_dir=settings.models_dir, revision=settings.base_revision)
    return load_backbone(
        settings.base_model,
        cache_dir=settings.models_dir,
        revision=settings.base_revision,
        device=settings.device,
        dtype=named_dtype(settings.base_dtype),
        pack_weights=settings.pack_weights,
    )


def as_served(backbone: Backbone) -> ServedBase:
    return ServedBase(backbone.name, backbone.revision, backbone.identity.to_mapping())
