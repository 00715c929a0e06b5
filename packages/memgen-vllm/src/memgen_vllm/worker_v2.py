"""In the worker, model runner V2 (a GPU's): which tokens of a step the adapter is on for, and what penalties count.

This runner has no ids at hand on the CPU later, so it is kept where what a request has yet to read is virtual.
"""

from typing import Any

import numpy as np
import torch

from memgen_vllm.memory import is_memory
from memgen_vllm.virtual_ids import QUERY

_VIRTUAL = "memgen_virtual"


def note_spans(original: Any, self: Any, scheduler_output: Any) -> None:
    """`GPUModelRunner.add_requests`, which a request also comes through when it goes on behind an insertion."""
    original(self, scheduler_output)
    state = self.lora_state
    state.memgen_req_states = self.req_states
    kept = {id_: spans for id_, spans in getattr(state, _VIRTUAL, {}).items() if id_ in state.lora_requests}
    for new in scheduler_output.scheduled_new_reqs:
        if is_memory(new.lora_request):
            kept[new.req_id] = np.asarray(new.prefill_token_ids) >= QUERY
    setattr(state, _VIRTUAL, kept)


def active_loras(original: Any, self: Any, req_ids: list[str]) -> Any:
    """`LoraState.get_activate_loras`, also called before a CUDA graph is chosen.

    A step behind all spans takes the graph without LoRA.
    """
    ahead = {req_id: _ahead(self, req_id) for req_id in req_ids}
    return original(self, [req_id for req_id in req_ids if (spans := ahead[req_id]) is None or spans.any()])


def lora_inputs(original: Any, self: Any, req_ids: Any, idx_mapping: Any, num_scheduled_tokens: Any) -> Any:
    """`LoraState.make_lora_inputs`: a memory's adapter is on for virtual ids, and never for the logits."""
    sampled, tokens, active = original(self, req_ids, idx_mapping, num_scheduled_tokens)
    sampled_ids, token_ids, start = np.array(sampled), np.array(tokens), 0
    for row, (req_id, count) in enumerate(zip(req_ids, num_scheduled_tokens, strict=True)):
        ahead = _ahead(self, req_id)
        if ahead is not None:
            on = np.zeros(count, dtype=bool)
            on[: len(ahead)] = ahead[:count]
            token_ids[start : start + count] *= on
            sampled_ids[row] = 0
        start += count
    return tuple(sampled_ids), tuple(token_ids), active


def count_tokens(
    original: Any,
    idx_mapping: torch.Tensor,
    all_token_ids: torch.Tensor,
    prompt_len: torch.Tensor,
    prefill_len: torch.Tensor,
    prompt_bin_mask: torch.Tensor,
    output_bin_counts: torch.Tensor,
    max_prefill_len: int,
) -> None:
    """`penalties.bincount`, without virtual ids: its kernel would write where they point, outside its tables.

    Args:
        prompt_bin_mask: `(B, V / 32)`, a bit for each token of the vocabulary that stands in the prompt.
        output_bin_counts: `(B, V)`, how often each stands in the answer.
    """
    rows = idx_mapping.tolist()
    table = all_token_ids[idx_mapping.long(), :max_prefill_len]
    if not bool((table >= QUERY).any()):
        original(
            idx_mapping, all_token_ids, prompt_len, prefill_len, prompt_bin_mask, output_bin_counts, max_prefill_len
        )
        return
    bits = 1 << torch.arange(32, device=prompt_bin_mask.device, dtype=torch.int64)
    for place, row in enumerate(rows):
        prompt, whole = int(prompt_len[row]), int(prefill_len[row])
        ids = table[place].long().to(output_bin_counts.device)
        vocabulary = output_bin_counts.shape[1]
        counts = [
            torch.bincount(part[part < QUERY], minlength=vocabulary) for part in (ids[:prompt], ids[prompt:whole])
        ]
        output_bin_counts[row] = counts[1].to(output_bin_counts.dtype)
        in_prompt = torch.nn.functional.pad((counts[0] > 0).long(), (0, -vocabulary % 32)).view(-1, 32)
        words = (in_prompt * bits).sum(-1)
        # The last bit is the sign of 32 bits.
        prompt_bin_mask[row] = torch.where(words >= 1 << 31, words - (1 << 32), words).to(prompt_bin_mask.dtype)


def _ahead(state: Any, req_id: str) -> Any:
    """Whether each token that a request has yet to read is virtual; None if it has no memory."""
    virtual = getattr(state, _VIRTUAL, {}).get(req_id)
    if virtual is None:
        return None
    states = state.memgen_req_states
    return virtual[states.num_computed_tokens_np[states.req_id_to_index[req_id]] :]
