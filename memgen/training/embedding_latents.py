"""Latents of memory form `embedding` for a batch of training examples.

An insertion depends on the latents of those before it. The insertions at the prompts' ends are woven together, then
the first inside each answer, the second, and so on, one pass of the weaver after another; its stream keeps what it
has read and reads only what is new.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from memgen.backbone.lora import LoraTokens
from memgen.backbone.prompt_cache import read_prompts
from memgen.backbone.tape import Tape
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
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
    unread = [
        [
            reasoner.decoder.embed(torch.tensor([*example.cue_ids, *example.prompt_ids], device=device)),
            *([] if 0 in insertions else _tokens_to_next(host, example, insertions, 0)),
        ]
        for example, insertions in zip(examples, layout.insertions, strict=True)
    ]
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    at_prompt: list[Tensor] = []
    inside: list[list[Tensor]] = [[] for _ in examples]
    for number, going in _rounds(layout):
        queries = memory.queries(at_prompt_end=number == 0)()
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
            (at_prompt if number == 0 else inside[row]).append(latents)
            unread[row] = [latents, *_tokens_to_next(host, examples[row], layout.insertions[row], number)]
    flat = embeds.flatten(0, 1)
    for index, parts in (
        (layout.prompt_latents, at_prompt),
        (layout.inference_latents, [latents for row in inside for latents in row]),
    ):
        if parts:
            flat = flat.index_copy(0, index, torch.cat(parts))
    return flat.view_as(embeds)


def _rounds(layout: Layout) -> list[tuple[int, list[int]]]:
    """(number, rows that weave) of each pass: 0 is the prompts' ends, `n` the n-th insertion inside each answer."""
    inside = [sum(1 for count in insertions if count) for insertions in layout.insertions]
    at_prompt = [row for row, insertions in enumerate(layout.insertions) if 0 in insertions]
    later = [(n, [row for row, most in enumerate(inside) if n <= most]) for n in range(1, 1 + max(inside))]
    return [(0, at_prompt), *later] if at_prompt else later


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


def _tokens_to_next(host: AdapterHost, example: Example, insertions: Sequence[int], number: int) -> list[Tensor]:
    """Embeddings `(n, H)` of the target tokens from insertion `number` (0: the prompt's end) to the next, if any."""
    inside = [0, *(count for count in insertions if count)]
    if number + 1 >= len(inside):
        return []
    ids = torch.tensor(example.target_ids[inside[number] : inside[number + 1]], device=host.backbone.device)
    return [host.backbone.decoder.embed(ids)]
