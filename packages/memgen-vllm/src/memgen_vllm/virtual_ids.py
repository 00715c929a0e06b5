"""How an insertion looks in token ids: virtual ids, which no vocabulary reaches and no user can send.

    QUERY + k                  the k-th query of the prompt's end, of the request's memory
    QUERY + MAX_QUERIES + k    the k-th query of an insertion inside the answer
    AGAIN + t                  token t, read again by the weaver

The adapter is on for exactly the virtual ids. They are the same for all memories; whose they are, the request's own
LoRA says, as for any adapter. Knows neither vLLM nor files.
"""

from collections.abc import Iterable, Sequence

from memgen.config import MemoryConfig

QUERY = 1 << 24
AGAIN = 1 << 25
MAX_QUERIES = 256
"""Most latents of one insertion, as `memgen.config.MemoryConfig` has it."""


def woven_prompt(config: MemoryConfig, prompt: Sequence[int]) -> list[int]:
    """`prompt[:-1] | its last R tokens again | K queries | prompt[-1]`.

    With R = 2 and K = 1, `[5, 6, 7, 8]` becomes `[5, 6, 7, AGAIN + 6, AGAIN + 7, QUERY, 8]`.
    """
    again = [AGAIN + token for token in config.tokens_to_reread(prompt)]
    return [*prompt[:-1], *again, *range(QUERY, QUERY + config.latents), prompt[-1]]


def woven_inside(config: MemoryConfig) -> list[int]:
    """What an insertion inside the answer puts in front of the newest token."""
    first = QUERY + MAX_QUERIES
    return list(range(first, first + config.inference_latents))


def is_virtual(token: int) -> bool:
    return token >= QUERY


def plain(tokens: Iterable[int]) -> Iterable[int]:
    """The tokens without virtual ones, lazily and in their order."""
    return (token for token in tokens if token < QUERY)
