"""In the engine core: a request's insertion becomes part of its prompt, and of the keys of the prefix cache.

The front, its detokenizer and `usage` keep the plain prompt.
"""

from typing import Any

from msgspec.structs import replace

from memgen_vllm.memory import is_memory, memory_of
from memgen_vllm.virtual_ids import QUERY, woven_prompt


def woven_request(original: Any, core_request: Any, block_hasher: Any) -> Any:
    """`Request.from_engine_core_request`."""
    memory = memory_of(core_request.lora_request)
    if memory is not None and memory.weaves:
        core_request = replace(
            core_request, prompt_token_ids=woven_prompt(memory.config, core_request.prompt_token_ids)
        )
    return original(core_request, block_hasher)


def extra_keys(original: Any, request: Any, start: int, end: int, start_mm_idx: int) -> Any:
    """`generate_block_hash_extra_keys`: a memory's name marks only the blocks that hold something of it.

    Those behind differ by their parent's hash; those in front are the bare base's, and shared. If vLLM ever stopped
    calling this, its own keys would mark every block: correct, and shared by nobody.
    """
    keys, next_mm_idx = original(request, start, end, start_mm_idx)
    if keys and is_memory(request.lora_request) and max(request.all_token_ids[start:end]) < QUERY:
        keys = tuple(key for key in keys if key[0] != "lora") or None
    return keys, next_mm_idx
