"""The frozen base's hidden states of prompts and of texts, by which routing and retrieval compare them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from memgen.backbone.kv_cache import SlotCache
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import read_sharing
from memgen.errors import ConfigError, PromptTooLong

STATE_KINDS = ("mean", "last")


@torch.no_grad()
def text_states(backbone: Backbone, texts: Sequence[str], *, kind: str = "mean", batch_size: int = 16) -> Tensor:
    """States `(N, H)`, float32 on the CPU, of plain texts.

    Args:
        kind: `mean` of the last hidden states of all tokens, or `last`: of the last token but one, as the router's.

    Raises:
        ConfigError: an unknown kind.
        PromptTooLong: a text exceeds the model's context.
    """
    if kind not in STATE_KINDS:
        raise ConfigError(f"state kind is {kind!r}; expected one of {STATE_KINDS}")
    ids = [list(backbone.profile.text_ids(text, begin=True)) for text in texts]
    if kind == "last":
        return prompt_states(backbone, ids, batch_size=batch_size)
    longest = max(map(len, ids), default=0)
    if longest > backbone.max_tokens:
        raise PromptTooLong(f"a text has {longest} tokens, more than the model's {backbone.max_tokens}; leave it out")
    decoder = backbone.decoder
    states = torch.zeros(len(texts), backbone.hidden_size)
    order = sorted((number for number, some in enumerate(ids) if some), key=lambda number: len(ids[number]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(len(ids[number]) for number in batch)
        padded = torch.tensor([ids[number] + [0] * (width - len(ids[number])) for number in batch])
        window = SlotCache(decoder.kv_shape, len(batch), width).window(range(len(batch)), width)
        hidden = decoder.forward(decoder.embed(padded.to(backbone.device)), window).float().cpu()
        for number, row in zip(batch, hidden, strict=True):
            states[number] = row[: len(ids[number])].mean(dim=0)
    return states


@torch.no_grad()
def prompt_states(backbone: Backbone, prompts: Sequence[Sequence[int]], *, batch_size: int = 16) -> Tensor:
    """States `(N, H)`, float32 on the CPU, of prompts as token ids, in their order.

    For fitting. When serving they are already there, as `Prefix.state` of the prompt without its last token. The state
    of a prompt of one token is zero.

    Raises:
        PromptTooLong: a prompt exceeds the model's context.
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest > backbone.max_tokens:
        raise PromptTooLong(f"a prompt has {longest} tokens, more than the model's {backbone.max_tokens}; leave it out")
    states = torch.zeros(len(prompts), backbone.hidden_size)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        prefixes = read_sharing(backbone.decoder, [tuple(prompts[number][:-1]) for number in batch])
        states[batch] = torch.stack([prefix.state for prefix in prefixes]).float().cpu()
    return states
