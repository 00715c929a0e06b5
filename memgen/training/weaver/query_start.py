"""Where the prompt's queries of a weaver that was never trained start: as answers of its own training data.

Tokens of the very answers that are to be learned show the base the form of an answer before a single step, as a few
demonstrations in the prompt would, in K tokens (research/method.md has what it gains).
"""

from collections.abc import Collection, Iterable, Sequence

import torch

from memgen.backbone.loading import Backbone
from memgen.memory.weights import LINE_BREAK, Memory, start_as
from memgen.training.examples import Example


def start_from_answers(memory: Memory, base: Backbone, examples: Sequence[Example], seed: int) -> None:
    """Start the prompt's queries of a memory of form `cache` as answers of `examples`, which the seed draws.

    Nothing changes if no answer has a token beside special ones.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(examples), generator=generator).tolist()
    answers = (examples[number].target_ids for number in order)
    special = frozenset(int(token) for token in base.tokenizer.all_special_ids)
    token_ids = answer_tokens(answers, memory.config.latents, base.profile.text_ids(LINE_BREAK), special)
    if token_ids:
        start_as(memory.prompt_queries, token_ids, base, generator)


def answer_tokens(
    answers: Iterable[Sequence[int]], count: int, separator: Sequence[int], special: Collection[int]
) -> list[int]:
    """Up to `count` tokens of answers that differ, without special tokens, each behind the `separator`.

    Of the answers `1 2`, `3`, `1 2` and `4 5` with the separator 0, five tokens are `0 1 2 0 3`.
    """
    found: list[int] = []
    known: set[tuple[int, ...]] = set()
    for answer in answers:
        plain = tuple(token for token in answer if token not in special)
        if plain and plain not in known:
            known.add(plain)
            found += [*separator, *plain]
        if len(found) >= count:
            break
    return found[:count]
