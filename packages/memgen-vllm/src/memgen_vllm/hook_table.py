"""Every function of vLLM that is hooked, by process, and by what."""

from typing import Any

from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.lora import model_manager, utils, worker_manager
from vllm.lora.layers import VocabParallelEmbeddingWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers import utils as layer_utils
from vllm.platforms import current_platform
from vllm.v1.core import block_pool, kv_cache_utils
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.request import Request
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
from vllm.v1.worker.gpu import lora_utils, model_runner
from vllm.v1.worker.gpu.sample import penalties
from vllm.v1.worker.gpu_input_batch import InputBatch
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.worker_base import WorkerBase

from memgen_vllm import (
    answers,
    core_requests,
    cpu_draws,
    cpu_lora,
    front_models,
    front_requests,
    vanished,
    worker_loading,
    worker_v1,
    worker_v2,
)
from memgen_vllm.embedding import MemoryEmbedding
from memgen_vllm.errors import WrongVllm
from memgen_vllm.hooks import Hook

FRONT = (
    Hook(BaseServing, "_check_model", front_models.check_model),
    Hook(BaseServing, "_maybe_get_adapters", front_models.adapter_of_request),
    Hook(InputProcessor, "process_inputs", front_requests.checked_inputs),
)
ENGINE_CORE = (
    Hook(Request, "from_engine_core_request", core_requests.woven_request),
    # One function, bound to a name in both modules.
    Hook(kv_cache_utils, "generate_block_hash_extra_keys", core_requests.extra_keys),
    Hook(block_pool, "generate_block_hash_extra_keys", core_requests.extra_keys),
    Hook(Scheduler, "_update_request_with_output", answers.after_output),
    Hook(Scheduler, "_handle_stopped_request", answers.handle_stopped),
    Hook(Scheduler, "schedule", answers.with_room),
    Hook(Scheduler, "schedule", vanished.without_vanished),
    Hook(NewRequestData, "from_request", answers.with_answer),
)
WORKER = (
    Hook(worker_manager.WorkerLoRAManager, "_load_adapter", worker_loading.load_adapter),
    Hook(model_manager, "get_supported_lora_modules", worker_loading.with_embedding),
)
WORKER_V1 = (
    Hook(InputBatch, "make_lora_inputs", worker_v1.lora_inputs),
    Hook(GPUModelRunner, "_update_streaming_request", worker_v1.go_on),
    Hook(layer_utils, "get_token_bin_counts_and_mask", worker_v1.counts_without_virtual),
)
WORKER_V2 = (
    Hook(model_runner.GPUModelRunner, "add_requests", worker_v2.note_spans),
    Hook(lora_utils.LoraState, "get_activate_loras", worker_v2.active_loras),
    Hook(lora_utils.LoraState, "make_lora_inputs", worker_v2.lora_inputs),
    Hook(penalties, "bincount", worker_v2.count_tokens),
)
CPU = (
    Hook(PunicaWrapperCPU, "update_metadata", cpu_lora.update_metadata),
    Hook(PunicaWrapperCPU, "add_lora_linear", cpu_lora.add_lora_linear),
    Hook(PunicaWrapperCPU, "add_lora_logits", cpu_lora.add_lora_logits),
    Hook(InputBatch, "add_request", cpu_draws.add_request),
    Hook(TopKTopPSampler, "forward_cpu", cpu_draws.forward_cpu),
)
_load_from_files = worker_manager.WorkerLoRAManager._load_adapter


def all_hooks() -> tuple[Hook, ...]:
    """The hooks of this platform. Every process gets all: which of them it calls depends on what it is."""
    return (*FRONT, *ENGINE_CORE, *WORKER, *WORKER_V1, *WORKER_V2, *(CPU if current_platform.is_cpu() else ()))


def install_worker_methods() -> None:
    """Put the embedding among the layers that take an adapter, and the calls of the front on the worker's class."""
    if VocabParallelEmbeddingWithLoRA not in utils._all_lora_classes:
        raise WrongVllm("vllm.lora.utils._all_lora_classes has no VocabParallelEmbeddingWithLoRA to be replaced")
    utils._all_lora_classes = tuple(
        MemoryEmbedding if each is VocabParallelEmbeddingWithLoRA else each for each in utils._all_lora_classes
    )
    WorkerBase.memgen_prepare_adapter = _prepare_adapter
    WorkerBase.memgen_is_prepared = _is_prepared


def _prepare_adapter(worker: Any, lora_path: str, lora_int_id: int) -> None:
    worker_loading.prepare_adapter(worker.model_runner.lora_manager, _load_from_files, lora_path, lora_int_id)


def _is_prepared(_worker: Any, lora_int_id: int) -> bool:
    return worker_loading.is_prepared(lora_int_id)
