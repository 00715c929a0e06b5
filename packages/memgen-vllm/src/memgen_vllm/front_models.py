"""In the front: a request's `model` that names an artifact finds it here, checked, and known to the engine.

vLLM's own table of adapters stays empty, so no name can be bound anew. Nothing of this waits in the engine's loop but
the last step of an artifact's first use: its tensors are copied there (`worker_loading` prepares them elsewhere).
"""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from vllm.lora.request import LoRARequest

from memgen_vllm.artifacts import ArtifactFolder
from memgen_vllm.errors import NoSuchArtifact, NotKept, NotServed, PluginError, StoreDown
from memgen_vllm.memory import adapter_path
from memgen_vllm.names import ArtifactName
from memgen_vllm.refusals import check_artifact, check_server
from memgen_vllm.served_base import LoadedBase
from memgen_vllm.settings import PluginSettings
from registry.errors import NotConfigured

_STATUS = {
    NoSuchArtifact: (HTTPStatus.NOT_FOUND, "NotFoundError"),
    NotServed: (HTTPStatus.BAD_REQUEST, "BadRequestError"),
    StoreDown: (HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailableError"),
    NotKept: (HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailableError"),
}
_KNOWN = 4096
"""Artifacts that a front remembers as checked and known to the engine."""

_POLL_SECONDS = 0.02
_FETCHING_THREADS = 4


class Adapters:
    """The artifacts that one front has checked, for the engine behind it."""

    def __init__(self, engine: Any, settings: PluginSettings) -> None:
        self._engine = engine
        self._config = engine.vllm_config
        self._artifacts = ArtifactFolder(settings)
        self._base: LoadedBase | None = None
        self._known: OrderedDict[str, LoRARequest] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._fetching = ThreadPoolExecutor(_FETCHING_THREADS, "memgen-artifacts")
        """Threads that wait for the object store. Who needs nothing of it doesn't wait for them."""

    async def base(self) -> LoadedBase:
        """The base that the engine has loaded, read once."""
        if self._base is None:
            self._base = await asyncio.to_thread(LoadedBase.of_model, self._config.model_config)
        return self._base

    def known(self, name: ArtifactName) -> LoRARequest | None:
        return self._known.get(name.sha256)

    async def find(self, name: ArtifactName) -> LoRARequest:
        """The adapter of an artifact, on this machine and loadable. Raises PluginError."""
        if self._config.lora_config is None:
            raise NotServed("this server was started without --enable-lora, which memories need")
        check_server(self._config)
        base = await self.base()
        folder = await asyncio.to_thread(self._artifacts.here, name)
        if folder is None:
            folder = await asyncio.get_running_loop().run_in_executor(self._fetching, self._artifacts.ensure, name)
        if (known := self.known(name)) is not None:
            self._known.move_to_end(name.sha256)
            return known
        async with self._one_at_a_time:
            return self.known(name) or await self._introduce(name, folder, base)

    async def _introduce(self, name: ArtifactName, folder: Any, base: LoadedBase) -> LoRARequest:
        """Check an artifact and let the engine load it, so that it cannot fail in the midst of a step."""
        await asyncio.to_thread(check_artifact, folder, base, self._config.lora_config.max_lora_rank)
        if name.lora_id in {each.lora_int_id for each in self._known.values()}:
            raise NotServed(f"{name.sha256}: another artifact in use has the same number {name.lora_id} of 31 bits")
        found = LoRARequest(name.sha256, name.lora_id, str(adapter_path(folder)))
        try:
            await self._prepare(found)
            await self._engine.add_lora(found)
        except Exception as error:  # whatever a loader meets in foreign files
            await self._engine.remove_lora(name.lora_id)  # it may stand in a slot, half of it, and count as loaded
            raise NotServed(f"{name.sha256}: vLLM cannot load its adapter: {error}") from error
        self._known[name.sha256] = found
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return found

    async def _prepare(self, lora_request: LoRARequest) -> None:
        """Let threads of the workers read the adapter's files; the engine's loop goes on meanwhile."""
        args = (lora_request.lora_path, lora_request.lora_int_id)
        await self._engine.collective_rpc("memgen_prepare_adapter", args=args)
        # A worker can answer, and not call.
        while not all(await self._engine.collective_rpc("memgen_is_prepared", args=args[1:])):
            await asyncio.sleep(_POLL_SECONDS)


def adapters_of(models: Any) -> Adapters:
    """The adapters of vLLM's object of models, made with the first request."""
    found: Adapters | None = getattr(models, "memgen_adapters", None)
    if found is None:
        try:
            found = models.memgen_adapters = Adapters(models.engine_client, PluginSettings.of_environment())
        except NotConfigured as error:
            raise NotServed(str(error)) from error
        except OSError as error:
            raise NotKept(f"artifacts cannot be kept on this machine: {error}. Set MEMGEN_VLLM_ARTIFACTS") from error
    return found


async def check_model(original: Any, self: Any, request: Any) -> Any:
    """`BaseServing._check_model`: None, or the error that answers a request for a model that is not served."""
    name = ArtifactName.parse(request.model)
    if name is None:
        return await original(self, request)
    try:
        if getattr(request, "use_beam_search", False):
            raise NotServed("beam search reads its answer anew for each token, and would weave each time; leave it out")
        await adapters_of(self.models).find(name)
    except PluginError as error:
        status, kind = _STATUS[type(error)]
        return self.create_error_response(message=str(error), err_type=kind, status_code=status, param="model")
    return None


def adapter_of_request(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """`BaseServing._maybe_get_adapters`: the adapter of a request whose model was checked."""
    name = ArtifactName.parse(request.model)
    known = adapters_of(self.models).known(name) if name is not None else None
    return known if known is not None else original(self, request, *args, **kwargs)
