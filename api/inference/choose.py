"""Which engine answers, by the settings: the one place that knows both."""

from collections.abc import Callable

from api.inference.engine import InferenceEngine
from api.inference.local.engine import LocalEngine
from api.inference.vllm.engine import VllmEngine
from registry.binding import ServedBase
from registry.errors import NotConfigured
from registry.scratch import Scratch
from registry.settings import Settings


def make_engine(
    settings: Settings, scratch: Scratch | None = None, *, on_loaded: Callable[[ServedBase], None] | None = None
) -> InferenceEngine:
    """The engine that `MEMGEN_ENGINE` names; not started.

    Args:
        scratch: where artifacts are unpacked; None is the system's folder for temporary files.
        on_loaded: called once the base is known, before anything is answered; what it raises is logged.

    Raises:
        NotConfigured: the engine is `vllm`, and it is not said where the server is.
    """
    if settings.engine == "local":
        return LocalEngine(settings, scratch, on_loaded=on_loaded)
    if not settings.vllm_urls:
        raise NotConfigured(
            "MEMGEN_ENGINE is vllm, and MEMGEN_VLLM_URL is not set; expected the URL of a vLLM server with the plugin "
            "memgen-vllm, or several with commas between. `memgen up --engine vllm` starts one on this machine"
        )
    return VllmEngine(settings, settings.vllm_urls, on_loaded=on_loaded)
