"""In the worker, model runner V1 (the CPU's): which tokens of a step the adapter is on for, and answers that go on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from memgen_vllm.memory import is_memory
from memgen_vllm.virtual_ids import QUERY

traces: list[Callable[[str, list[int], list[int]], None]] = []
"""Called with a request's id, the ids that a step reads of it, and the number of the adapter that is on for each."""


def lora_inputs(original: Any, self: Any, num_scheduled_tokens: Any, num_sampled_tokens: Any) -> Any:
    """`InputBatch.make_lora_inputs`: a memory's adapter is on for virtual ids, and never for the logits.

    Adapters that no token of the step needs are not activated.
    """
    sampled, tokens, active = original(self, num_scheduled_tokens, num_sampled_tokens)
    memories = {lora.lora_int_id for lora in active if is_memory(lora)}
    if not memories and not traces:
        return sampled, tokens, active
    sampled_ids, token_ids = np.array(sampled), np.array(tokens)
    token_start = sampled_start = 0
    for row, (count, outputs) in enumerate(zip(num_scheduled_tokens, num_sampled_tokens, strict=True)):
        here = slice(token_start, token_start + count)
        done = self.num_computed_tokens_cpu[row]
        ids = self.token_ids_cpu[row, done : done + count]
        if int(self.request_lora_mapping[row]) in memories:
            token_ids[here] *= ids >= QUERY
            sampled_ids[sampled_start : sampled_start + outputs] = 0
        for trace in traces:
            trace(self.req_ids[row], ids.tolist(), token_ids[here].tolist())
        token_start, sampled_start = token_start + count, sampled_start + outputs
    on = {*sampled_ids.tolist(), *token_ids.tolist()}
    return tuple(sampled_ids), tuple(token_ids), {lora for lora in active if lora.lora_int_id in on}


def go_on(original: Any, self: Any, req_id: str, new_req_data: Any) -> Any:
    """`GPUModelRunner._update_streaming_request`: the answer so far stays answer (`memgen_vllm.answers`)."""
    state = original(self, req_id, new_req_data)
    if new_req_data.prefill_token_ids is not None:
        state.output_token_ids.extend(new_req_data.prefill_token_ids[new_req_data.prompt_len :])
    return state


def counts_without_virtual(original: Any, tokens: Any, vocab_size: int, num_seqs: int) -> Any:
    """`get_token_bin_counts_and_mask`, of all penalties: `vocab_size` is vLLM's own padding there."""
    return original(tokens.clamp(max=vocab_size), vocab_size, num_seqs)
