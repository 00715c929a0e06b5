"""In the worker: the embedding layer that knows virtual ids, with a table of queries for each LoRA slot."""

from typing import Any

import torch
from torch import Tensor
from vllm.lora.layers import VocabParallelEmbeddingWithLoRA

from memgen_vllm.virtual_ids import AGAIN, MAX_QUERIES, QUERY


class MemoryEmbedding(VocabParallelEmbeddingWithLoRA):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Pure tensor operations on persistent buffers, so that it may stand in a compiled or captured graph.

    The `adapter` of this layer is a memory's queries; adapters of the embedding itself are refused in the front.
    """

    def create_lora_weights(self, max_loras: int, lora_config: Any, model_config: Any = None) -> None:
        weight = self.base_layer.weight
        size = (max_loras, 2 * MAX_QUERIES, self.base_layer.embedding_dim)
        self.queries = torch.zeros(size, dtype=weight.dtype, device=weight.device)

    def reset_lora(self, index: int) -> None:
        self.queries[index] = 0

    def set_lora(self, index: int, lora_a: Tensor, lora_b: Tensor) -> None:
        """`lora_a` holds queries `(N, H)`, those inside answers from row MAX_QUERIES on; `lora_b` is empty."""
        self.reset_lora(index)
        self.queries[index, : len(lora_a)].copy_(lora_a)

    def forward(self, ids: Tensor) -> Tensor:
        again, virtual = ids >= AGAIN, ids >= QUERY
        known = torch.where(again, ids - AGAIN, torch.where(virtual, 0, ids))
        slots = self.punica_wrapper._token_lora_indices[: ids.shape[0]].clamp(min=0)
        queries = self.queries[slots, (ids - QUERY).clamp(0, 2 * MAX_QUERIES - 1)]
        return torch.where((virtual & ~again).unsqueeze(-1), queries, self.base_layer(known))
