"""In the worker: adapters are loaded with the queries of their memory, and prepared beside the engine's loop.

vLLM reads an adapter's files in its loop, between two steps of all running answers. Here a thread reads and converts
them (`prepare_adapter`, which returns at once); the loop only copies what is ready into a slot.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.request import LoRARequest
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

from memgen_vllm.embedding import MemoryEmbedding
from memgen_vllm.memory import held_artifact, is_memory, read_queries

_threads = ThreadPoolExecutor(1, "memgen-adapters")
_prepared: dict[int, Future[Any]] = {}


def load_adapter(original: Any, self: Any, lora_request: Any) -> Any:
    """`WorkerLoRAManager._load_adapter`: as it was prepared, or from the files now."""
    prepared = _prepared.pop(lora_request.lora_int_id, None)
    return prepared.result() if prepared is not None else _load(original, self, lora_request)


def prepare_adapter(manager: Any, original: Any, lora_path: str, lora_int_id: int) -> None:
    """Begin to load an adapter in a thread."""
    request = LoRARequest(str(lora_int_id), lora_int_id, lora_path)
    if lora_int_id not in manager.list_adapters() and lora_int_id not in _prepared:
        _prepared[lora_int_id] = _threads.submit(_load, original, manager, request)


def is_prepared(lora_int_id: int) -> bool:
    """Whether loading it would not wait any more."""
    prepared = _prepared.get(lora_int_id)
    return prepared is None or prepared.done()


def with_embedding(original: Any, model: Any) -> list[str]:
    """`get_supported_lora_modules`: some architectures do not name their embedding among what takes an adapter."""
    names = set(original(model))
    for name, module in model.named_modules():
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead):
            names.add(name.rpartition(".")[2])
    return list(names)


def _load(original: Any, manager: Any, lora_request: Any) -> Any:
    with held_artifact(lora_request) as folder:
        lora = original(manager, lora_request)
        if is_memory(lora_request):
            queries = read_queries(folder)
            for name, module in manager._adapter_manager.modules.items():
                if isinstance(module, MemoryEmbedding):
                    lora.loras[name] = LoRALayerWeights(name, 1, 1, queries, queries[:0])
    return lora
