"""The training forward: supervised tokens over cached prefixes and freshly woven latents.

The base is frozen, so everything in front of what the weaver reads or writes first needs no gradient and is encoded
once for all epochs. Only that and the answers are differentiated, and logits are computed where there is a target. With
form `cache` all insertions of a batch and the answers between them are one causal pass: the weaver's LoRA is on for
latents and what it reads again alone, and they alone see an example's cue. With form `lora` the adapter is on for all
of prompt and answer, so nothing is cached and everything is differentiated.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from memgen.backbone.kv_cache import Prefix, Window
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import LoraTokens
from memgen.backbone.prompt_cache import TokenIds, empty_prefix, read_sharing
from memgen.backbone.tape import Tape
from memgen.config import MemoryConfig
from memgen.memory.cue_window import CuedWindow
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from memgen.text.delimiters import DelimiterMatcher
from memgen.training.embedding_latents import weave_latents
from memgen.training.examples import Example
from memgen.training.layout import NO_TARGET, Layout, lay_out
from memgen.training.losses import token_nll

READ_AHEAD = 2048
"""Prompt tokens that a device reads in one go, of whole passes."""


class PrefixSource(Protocol):
    """Where the base's caches of prompts come from: a `PrefixStore`, or a `PromptCache`."""

    def read(self, prompts: Sequence[TokenIds]) -> list[Prefix]: ...


class PrefixStore:
    """The base's caches of prompts without their last token, kept for all epochs within a number of bytes.

    Which prompts are kept and which are encoded together follows from `groups` alone, never from what was read
    before: rounding depends on which prompts share a batch, and a resumed run must repeat an unbroken one bit for bit.
    """

    def __init__(self, backbone: Backbone, max_bytes: int, groups: Iterable[Sequence[TokenIds]] = ()) -> None:
        """`groups` are the prompts in the order of their first use, batch by batch; the first that fit are kept."""
        self._decoder = backbone.decoder
        self._group_of: dict[TokenIds, list[TokenIds]] = {}
        self._kept: dict[TokenIds, Prefix] = {}
        left = max_bytes // self._decoder.kv_shape.bytes_per_token
        for group in groups:
            members: list[TokenIds] = []
            for prefix in group:
                if prefix not in self._group_of and len(prefix) <= left:
                    left -= len(prefix)
                    members.append(prefix)
                    self._group_of[prefix] = members

    def read(self, prompts: Sequence[TokenIds]) -> list[Prefix]:
        """Prefixes of a batch of prompts, encoding those that are not kept."""
        passing = list(dict.fromkeys(p for p in prompts if p not in self._group_of))
        found = dict(zip(passing, read_sharing(self._decoder, passing), strict=True))
        for prompt in prompts:
            if prompt in self._group_of and prompt not in self._kept:
                group = self._group_of[prompt]
                self._kept.update(zip(group, read_sharing(self._decoder, group), strict=True))
        return [self._kept[p] if p in self._kept else found[p] for p in prompts]


def texts_read(examples: Sequence[Example], config: MemoryConfig | None) -> list[TokenIds]:
    """What the bare base reads before a batch is trained on: prompts without their last token, then, if the memory is
    of form `cache`, the cues of those examples that have one; nothing for form `lora`, which reads for itself."""
    if config is not None and config.form == "lora":
        return []
    cued = config is not None and config.form == "cache"
    return [*(e.prompt_ids[:-1] for e in examples), *(e.cue_ids for e in examples if cued and e.cue_ids)]


def gathered(passes: Iterable[Sequence[list[TokenIds]]]) -> Iterator[list[TokenIds]]:
    """Groups for a `PrefixStore`, of several passes each: prompts of many share what they begin with, and one large
    product takes less time than several small ones.

    Args:
        passes: prompts by pass, then by device. No group has prompts of two devices, so none reads another's.
    """
    ahead: list[list[TokenIds]] = []
    for by_device in passes:
        ahead = ahead or [[] for _ in by_device]
        for texts, more in zip(ahead, by_device, strict=True):
            texts.extend(more)
        if max(sum(map(len, texts)) for texts in ahead) >= READ_AHEAD:
            yield from ahead
            ahead = []
    yield from ahead


def supervised_nll(
    host: AdapterHost,
    memory: str | None,
    examples: Sequence[Example],
    prefixes: PrefixSource,
    *,
    temperature: float = 1.0,
    checkpointing: bool = False,
) -> tuple[Tensor, Tensor]:
    """Loss of every supervised token of a batch, memory woven where each example says (`layout.insertions_of`).

    Args:
        memory: name of a memory in the host, or None for the bare base.
        temperature: the loss is of `softmax(logits / temperature)`.
        checkpointing: keep only each layer's input for the backward pass.

    Returns:
        (nll `(N,)` in nats, example index of each token `(N,)`).
    """
    backbone, decoder = host.backbone, host.backbone.decoder
    woven = host.memories[memory] if memory is not None else None
    matcher = DelimiterMatcher.of(backbone.tokenizer, woven.config.delimiters) if woven else None
    layout = lay_out(examples, woven.config if woven else None, matcher, backbone.device)
    known = prefixes.read(texts_read(examples, woven.config if woven else None))
    known, cues = known[: len(examples)], known[len(examples) :]
    if woven is not None and woven.reader is not None:
        known = [empty_prefix(decoder)] * len(examples)
    starts = torch.tensor([prefix.tokens for prefix in known], device=backbone.device)
    positions = starts[:, None] + torch.arange(layout.ids.shape[1], device=backbone.device)
    window: Window = Tape(known).window(positions)
    embeds, lora = decoder.embed(layout.ids), None
    if woven is not None and woven.config.form == "cache":
        embeds = _with_queries(embeds, layout, woven)
        index = layout.adapted
        lora = LoraTokens(((woven.weaver, index),))
        if cues:
            found = iter(cues)
            of_rows = [next(found) if example.cue_ids else None for example in examples]
            window = CuedWindow.seen_at(window, of_rows, index)
    elif woven is not None and woven.reader is not None:
        lora = LoraTokens.everywhere(woven.reader)
    elif woven is not None:
        embeds = weave_latents(host, woven, examples, layout, embeds, checkpointing=checkpointing)
    hidden = decoder.forward(embeds, window, lora, present=layout.present, checkpointing=checkpointing)
    supervised = layout.targets != NO_TARGET
    logits = decoder.logits(hidden[supervised])
    if temperature != 1.0:
        logits = logits.float() / temperature
    rows = torch.arange(len(examples), device=backbone.device)[:, None].expand_as(layout.targets)
    return token_nll(logits, layout.targets[supervised]), rows[supervised]


def _with_queries(embeds: Tensor, layout: Layout, memory: Memory) -> Tensor:
    """`embeds` `(B, N, H)` with the memory's queries where its latents are to be."""
    flat = embeds.flatten(0, 1)
    parts = ((layout.prompt_latents, memory.prompt_queries), (layout.inference_latents, memory.inference_queries))
    for index, queries in parts:
        if len(index):
            latents = queries().to(embeds.dtype)
            flat = flat.index_copy(0, index, latents.repeat(len(index) // len(latents), 1))
    return flat.view_as(embeds)
