"""The training forward: supervised tokens over cached prefixes and freshly woven latents.

The base is frozen, so everything in front of the first latent needs no gradient and is encoded once for all epochs.
Only the K queries and the supervised tokens are differentiated, and logits are computed where there is a target.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from memgen.backbone import Backbone
from memgen.engine import weave_rows
from memgen.kv_cache import SlotCache, encode_prefixes, join_prefixes, split_prefixes
from memgen.training.examples import Example
from memgen.training.losses import token_nll
from memgen.weaver import AdapterHost

Prefix = tuple[int, ...]
"""Token ids of a prompt without its last token."""


class PrefixStore:
    """The base's caches of prompts, kept for all epochs within a number of bytes.

    Which prompts are kept and which are encoded together follows from `groups` alone, never from what was asked
    before: rounding depends on the company in a batch, and a resumed run must repeat an unbroken one bit for bit.
    """

    def __init__(self, backbone: Backbone, max_bytes: int, groups: Iterable[Sequence[Prefix]] = ()) -> None:
        """`groups` are the prompts in the order of their first use, batch by batch; the first that fit are kept."""
        self._backbone = backbone
        self._group_of: dict[Prefix, list[Prefix]] = {}
        self._kept: dict[Prefix, Tensor] = {}
        left = max_bytes // bytes_per_token(backbone)
        for group in groups:
            members: list[Prefix] = []
            for prefix in group:
                if prefix not in self._group_of and len(prefix) <= left:
                    left -= len(prefix)
                    members.append(prefix)
                    self._group_of[prefix] = members

    def caches(self, prefixes: Sequence[Prefix]) -> SlotCache:
        """A batch of prompts as one cache, encoding those not at hand."""
        passing = {p: None for p in prefixes if p not in self._group_of}
        found = self._encode(list(passing))
        for prefix in prefixes:
            if prefix in self._group_of and prefix not in self._kept:
                self._kept.update(self._encode(self._group_of[prefix]))
        return join_prefixes([self._kept[p] if p in self._kept else found[p] for p in prefixes])

    def _encode(self, prefixes: Sequence[Prefix]) -> dict[Prefix, Tensor]:
        encoded: dict[Prefix, Tensor] = {}
        for batch in _of_similar_length(prefixes):
            encoded.update(zip(batch, split_prefixes(encode_prefixes(self._backbone, batch)), strict=True))
        return encoded


def _of_similar_length(prefixes: Sequence[Prefix]) -> list[list[Prefix]]:
    """Split so that in no batch the longest is over half again as long as the shortest: padding is computed too.

    Lengths 10, 60, 12, 70 become [10, 12] and [60, 70].
    """
    batches: list[list[Prefix]] = []
    for prefix in sorted(prefixes, key=len):
        if batches and len(prefix) <= 1.5 * len(batches[-1][0]):
            batches[-1].append(prefix)
        else:
            batches.append([prefix])
    return batches


def bytes_per_token(backbone: Backbone) -> int:
    """Size of one token's keys and values in all layers."""
    config = backbone.model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_size * backbone.model.dtype.itemsize)


def supervised_nll(
    host: AdapterHost, memory: str | None, examples: Sequence[Example], prefixes: PrefixStore
) -> tuple[Tensor, Tensor]:
    """Loss of every supervised token of a batch.

    Args:
        memory: name of a memory in the host, or None for the bare base.

    Returns:
        (nll `(N,)` in nats, example index of each token `(N,)`).
    """
    backbone = host.backbone
    cache = prefixes.caches([e.prompt_ids[:-1] for e in examples])
    weave_rows(host, cache, [memory] * len(examples))
    ids, targets = _answer_batch(examples, backbone.device)
    mask, positions = cache.forward_inputs(ids.shape[1])
    hidden: Tensor = backbone.model.model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache.kv, use_cache=True
    ).last_hidden_state
    supervised = targets >= 0
    logits = backbone.model.lm_head(hidden[supervised])
    rows = torch.arange(len(examples), device=ids.device)[:, None].expand_as(targets)
    return token_nll(logits, targets[supervised]), rows[supervised]


def _answer_batch(examples: Sequence[Example], device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs `(B, S)` (last prompt token, then the answer but its last token) and targets `(B, S)`, -1 if none.

    Padded on the right, where causal attention keeps padding out of every supervised token's sight.
    """
    width = max(len(e.target_ids) for e in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    targets = torch.full((len(examples), width), -1, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.target_ids)
        ids[row, :length] = torch.tensor([example.prompt_ids[-1], *example.target_ids[:-1]])
        targets[row, :length] = torch.tensor(example.target_ids)
    return ids.to(device), targets.to(device)
