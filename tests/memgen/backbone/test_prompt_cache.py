"""Prompts that begin alike: what they share is read once, and nothing else changes."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from hypothesis import given
from hypothesis import strategies as st

from memgen.backbone.decoder import Decoder
from memgen.backbone.kv_cache import Prefix
from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import TokenIds, read_prompts, read_sharing, shared_starts

SYSTEM = tuple(range(5, 45))
TURN = tuple(range(60, 100))


class CountingDecoder:
    """A decoder that counts the tokens it is given."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.kv_shape, self.embed = decoder.kv_shape, decoder.embed
        self.passes: list[int] = []

    def forward(self, embeds: torch.Tensor, *args: Any, present: torch.Tensor, **more: Any) -> torch.Tensor:
        self.passes.append(int(present.sum()))
        return self._decoder.forward(embeds, *args, present=present, **more)


def test_a_shared_system_prompt_is_read_once(backbone: Backbone) -> None:
    prompts = [(*SYSTEM, 50), (*SYSTEM, 51, 52), (7, 8, 9), (*SYSTEM, 53)]
    counting = CountingDecoder(backbone.decoder)
    found = read_sharing(cast(Decoder, counting), prompts)
    assert sum(counting.passes) == len(SYSTEM) + 4 + 3
    _assert_like(found, read_prompts(backbone.decoder, prompts))


def test_every_turn_of_a_conversation_is_read_behind_the_turn_before(backbone: Backbone) -> None:
    turns = [SYSTEM, SYSTEM + TURN, SYSTEM + TURN + TURN]
    prompts = [turns[2], turns[0], (*turns[1], 3), turns[1]]
    assert shared_starts(prompts) == [turns[0], turns[1]]
    counting = CountingDecoder(backbone.decoder)
    found = read_sharing(cast(Decoder, counting), prompts)
    assert counting.passes[:2] == [len(SYSTEM), len(TURN)]
    assert sum(counting.passes) == len(turns[2]) + 1
    _assert_like(found, read_prompts(backbone.decoder, prompts))


def test_what_a_pass_would_cost_more_than_it_saves_is_not_shared(backbone: Backbone) -> None:
    assert shared_starts([(5, 6, 7), (5, 6, 8)]) == []
    assert shared_starts([]) == []
    assert shared_starts([SYSTEM]) == []
    assert read_sharing(backbone.decoder, []) == []


@given(st.lists(st.lists(st.integers(0, 2), max_size=60).map(tuple), max_size=12))
def test_starts_are_shared_and_pay_for_themselves(prompts: list[TokenIds]) -> None:
    prompts = list(dict.fromkeys(prompts))
    starts = shared_starts(prompts)
    assert len(set(starts)) == len(starts)
    for start in starts:
        users = [prompt for prompt in prompts if prompt[: len(start)] == start]
        behind = max((len(s) for s in starts if s != start and start[: len(s)] == s), default=0)
        assert (len(users) - 1) * (len(start) - behind) >= 32


def _assert_like(found: Sequence[Prefix], expected: Sequence[Prefix]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        torch.testing.assert_close(one.kv, other.kv)
        torch.testing.assert_close(one.state, other.state)
