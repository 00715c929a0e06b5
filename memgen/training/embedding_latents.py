"""Latents of memory form `embedding` for a batch of training examples.

An insertion depends on the latents of those before it, so the k-th insertions of all rows are woven together, one
pass of the weaver after another; its stream keeps what it has read and reads only what is new.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from memgen.host import AdapterHost
from memgen.kv_cache import Tape
from memgen.lora import LoraTokens
from memgen.memory import Memory
from memgen.prompts import read_prompts
from memgen.training.examples import Example
from memgen.training.layout import Layout


def weave_latents(
    host: AdapterHost,
    memory: Memory,
    examples: Sequence[Example],
    layout: Layout,
    embeds: Tensor,
    *,
    checkpointing: bool = False,
) -> Tensor:
    """The reasoner's input embeddings `(B, N, H)` with latents woven where `layout` has them. Differentiable."""
    base, reasoner = host.weaver_base(memory.config), host.backbone
    decoder, device = base.decoder, reasoner.device
    rows = len(examples)
    tape = Tape(read_prompts(decoder, [()] * rows))
    unread = [[reasoner.decoder.embed(torch.tensor(e.prompt_ids, device=device))] for e in examples]
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    woven: list[list[Tensor]] = [[] for _ in examples]
    for ordinal in range(1 + max(len(points) for points in layout.points)):
        queries = memory.queries(at_prompt_end=ordinal == 0)()
        going = [row for row, points in enumerate(layout.points) if ordinal <= len(points)]
        contexts = [
            torch.cat(unread[row]) if row in going else embeds.new_zeros(0, embeds.shape[2]) for row in range(rows)
        ]
        inputs, stays = _pad(memory, contexts, queries, going)
        counts = stays.sum(dim=1)
        positions = lengths[:, None] + torch.arange(inputs.shape[1], device=device)
        hidden = decoder.forward(
            inputs.to(decoder.kv_shape.dtype),
            tape.window(positions, stays),
            LoraTokens.everywhere(memory.weaver),
            checkpointing=checkpointing,
        )
        lengths = lengths + counts
        for row in going:
            start = len(contexts[row])
            states = hidden[row, start : start + len(queries)].to(memory.weaver_to_reasoner.weight.dtype)
            latents = memory.weaver_to_reasoner(states).to(embeds.dtype)
            woven[row].append(latents)
            unread[row] = [latents, *_tokens_to_next(host, examples[row], layout.points[row], ordinal)]
    at_prompt = torch.cat([parts[0] for parts in woven])
    flat = embeds.flatten(0, 1).index_copy(0, layout.prompt_latents, at_prompt)
    if len(layout.inference_latents):
        inside = torch.cat([part for parts in woven for part in parts[1:]])
        flat = flat.index_copy(0, layout.inference_latents, inside)
    return flat.view_as(embeds)


def _pad(memory: Memory, contexts: Sequence[Tensor], queries: Tensor, going: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The weaver's inputs `(B, N, Hw)`: each row's context, then the queries, then padding; and what stays `(B, N)`."""
    width = max(len(contexts[row]) for row in going) + len(queries)
    stays = torch.zeros(len(contexts), width, dtype=torch.bool, device=queries.device)
    padded = []
    for row, context in enumerate(contexts):
        parts = [memory.reasoner_to_weaver(context.to(queries.dtype)), queries] if row in going else []
        missing = width - sum(len(part) for part in parts)
        padded.append(torch.cat([*parts, queries.new_zeros(missing, queries.shape[1])]))
        stays[row, : len(context)] = True
    return torch.stack(padded), stays


def _tokens_to_next(host: AdapterHost, example: Example, points: Sequence[int], ordinal: int) -> list[Tensor]:
    """Embeddings `(n, H)` of the target tokens between insertion `ordinal` and the next, if there is one."""
    if ordinal >= len(points):
        return []
    first = points[ordinal - 1] + 1 if ordinal else 0
    ids = torch.tensor(example.target_ids[first : points[ordinal] + 1], device=host.backbone.device)
    return [host.backbone.decoder.embed(ids)]
