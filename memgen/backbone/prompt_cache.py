"""Prompts that were read, kept for the next who needs them.

The base reads without any adapter, so what it made of a prompt is the same for every memory, version, sample and
request. A version of form `lora` reads for itself, and what it made of a prompt holds for no other reader: neither the
base nor another version. A prompt that begins like a kept one of the same reader is read from where they part: a
conversation's next turn, a shared system prompt, the samples of one group.
"""

from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from itertools import groupby

import torch

from memgen.backbone.decoder import Decoder
from memgen.backbone.kv_cache import Prefix, SlotCache
from memgen.backbone.lora import BARE_READER

TokenIds = tuple[int, ...]
_Key = tuple[int, TokenIds]
"""Number of the reader (`memgen.backbone.lora.Lora.number`), and what it has read."""

WORTH_A_PASS = 32
"""Tokens that sharing must save to pay for a pass of its own, whose cost on a CPU is that of some tokens more."""


class PromptCache:
    """Least recently used prompts are dropped beyond `max_bytes`. Not thread-safe: one thread owns the model.

    A reader whose weights change needs a new cache, since it goes by its number alone.
    """

    def __init__(self, decoder: Decoder, max_bytes: int) -> None:
        self._decoder = decoder
        self._max_tokens = max_bytes // decoder.kv_shape.bytes_per_token
        self._kept: OrderedDict[_Key, Prefix] = OrderedDict()
        self._tokens = 0
        self._sorted: list[_Key] = []
        """The kept prompts in order: the one that begins most like another stands beside where that would."""
        self.reused_tokens = 0
        """Prompt tokens that did not need to be read, since the cache was made."""

    @torch.no_grad()
    def read(self, prompts: Sequence[TokenIds]) -> list[Prefix]:
        """Each prompt's prefix of the bare base, reading only what is not known. An empty prompt is an empty prefix."""
        missing: dict[TokenIds, Prefix | None] = {}
        for prompt in prompts:
            if (BARE_READER, prompt) in self._kept:
                self._kept.move_to_end((BARE_READER, prompt))
                self.reused_tokens += len(prompt)
            elif prompt in missing:
                self.reused_tokens += len(prompt)
            else:
                missing[prompt] = self.find_start(prompt)
        found = dict(zip(missing, read_prompts(self._decoder, list(missing), list(missing.values())), strict=True))
        answers = [found[p] if p in found else self._kept[BARE_READER, p] for p in prompts]
        for prompt, prefix in found.items():
            self._insert((BARE_READER, prompt), prefix)
        self._drop()
        return answers

    def find(self, prompt: TokenIds, reader: int = BARE_READER) -> Prefix | None:
        """The prefix of a prompt that is kept whole; its tokens count as reused."""
        prefix = self._kept.get((reader, prompt))
        if prefix is not None:
            self._kept.move_to_end((reader, prompt))
            self.reused_tokens += len(prompt)
        return prefix

    def find_start(self, prompt: TokenIds, reader: int = BARE_READER) -> Prefix | None:
        """The reader's kept prompt that begins most alike, cut where they part; at least one token is left to read, so
        its state is no prompt's. Its tokens count as reused."""
        place = bisect_left(self._sorted, (reader, prompt))
        best, shared = None, 0
        for kept in self._sorted[max(0, place - 1) : place + 1]:
            length = common_tokens(kept[1], prompt[:-1]) if kept[0] == reader else 0
            if length > shared:
                best, shared = kept, length
        if best is None:
            return None
        self._kept.move_to_end(best)
        self.reused_tokens += shared
        source = self._kept[best]
        return Prefix(source.kv[:, :, :, :shared], source.state)

    def has_room(self, tokens: int) -> bool:
        """Whether a prompt of so many tokens would be kept."""
        return 0 < tokens <= self._max_tokens

    def keep(self, prompt: TokenIds, prefix: Prefix, reader: int = BARE_READER) -> None:
        """Take what somebody else has let the reader make of a prompt."""
        self._insert((reader, prompt), prefix)
        self._drop()

    def _insert(self, key: _Key, prefix: Prefix) -> None:
        if key not in self._kept:
            insort(self._sorted, key)
            self._tokens += prefix.tokens
        self._kept[key] = prefix
        self._kept.move_to_end(key)

    def _drop(self) -> None:
        while self._tokens > self._max_tokens and self._kept:
            key, prefix = self._kept.popitem(last=False)
            self._tokens -= prefix.tokens
            del self._sorted[bisect_left(self._sorted, key)]


def read_sharing(decoder: Decoder, prompts: Sequence[TokenIds]) -> list[Prefix]:
    """Let the bare base read prompts that differ, reading what several of them begin with once.

    The examples of one batch often share a system prompt and tools, the turns of one conversation all of its past.
    What is read together follows from `prompts` alone.
    """
    known: dict[TokenIds, Prefix] = {}
    for together in (*_by_depth(shared_starts(prompts)), prompts):
        starts = [max((s for s in known if text[: len(s)] == s), key=len, default=()) for text in together]
        read = read_prompts(decoder, together, [known.get(start) for start in starts])
        known.update(zip(together, read, strict=True))
    return [known[prompt] for prompt in prompts]


def shared_starts(prompts: Sequence[TokenIds]) -> list[TokenIds]:
    """What several prompts begin with and is worth reading once for them all; none stands behind a longer one of it.

    Of many prompts `sys one`, `sys one two` and `sys three` it is `sys ` and `sys one`, if these are long.
    """
    return _shared_starts(sorted(set(prompts)), 0)


def _shared_starts(prompts: Sequence[TokenIds], known: int) -> list[TokenIds]:
    """Shared starts of sorted prompts, whose first `known` tokens are read already."""
    if len(prompts) < 2:
        return []
    common = common_tokens(prompts[0], prompts[-1])
    here = []
    if (len(prompts) - 1) * (common - known) >= WORTH_A_PASS:
        here, known = [prompts[0][:common]], common
    longer = [prompt for prompt in prompts if len(prompt) > common]
    branches = groupby(longer, key=lambda prompt: prompt[common])
    return here + [start for _, branch in branches for start in _shared_starts(list(branch), known)]


def _by_depth(starts: Sequence[TokenIds]) -> list[list[TokenIds]]:
    """Starts of nothing but themselves first, then those that begin with one of these, and so on."""
    levels: defaultdict[int, list[TokenIds]] = defaultdict(list)
    for start in starts:
        levels[sum(start[: len(other)] == other for other in starts)].append(start)
    return [levels[depth] for depth in sorted(levels)]


@torch.no_grad()
def read_prompts(
    decoder: Decoder, prompts: Sequence[TokenIds], starts: Sequence[Prefix | None] | None = None
) -> list[Prefix]:
    """Let the bare base read `prompts`, each from behind the start that is already known of it."""
    known = [empty_prefix(decoder) if start is None else start for start in starts or [None] * len(prompts)]
    results: list[Prefix] = list(known)
    left = [len(prompt) - start.tokens for prompt, start in zip(prompts, known, strict=True)]
    for batch in _of_similar_length(left):
        cache = SlotCache.of_prefixes(decoder.kv_shape, [known[n] for n in batch], max(len(prompts[n]) for n in batch))
        width = max(left[n] for n in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for row, n in enumerate(batch):
            ids[row, : left[n]] = torch.tensor(prompts[n][known[n].tokens :])
        rows, device = range(len(batch)), decoder.kv_shape.device
        present = torch.arange(width, device=device) < torch.tensor([left[n] for n in batch], device=device)[:, None]
        hidden = decoder.forward(decoder.embed(ids.to(device)), cache.window(rows, width), present=present)
        for row, n in enumerate(batch):
            results[n] = Prefix(cache.read(row, len(prompts[n])), hidden[row, left[n] - 1].clone())
    return results


def common_tokens(one: TokenIds, other: TokenIds) -> int:
    """How many tokens they begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _of_similar_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of the lengths above 0, split so that in no group the longest is over half again as long as the
    shortest: padding is computed too.

    Lengths 10, 60, 0, 12, 70 become [[0, 3], [1, 4]].
    """
    groups: list[list[int]] = []
    for n in sorted((n for n, length in enumerate(lengths) if length > 0), key=lambda n: lengths[n]):
        if groups and lengths[n] <= 1.5 * lengths[groups[-1][0]]:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


def empty_prefix(decoder: Decoder) -> Prefix:
    """What is known of a prompt without tokens."""
    shape = decoder.kv_shape
    size = (shape.layers, 2, shape.heads, 0, shape.head_size)
    width = decoder.embed(torch.zeros(1, 1, dtype=torch.long, device=shape.device)).shape[-1]
    return Prefix(
        torch.zeros(size, dtype=shape.dtype, device=shape.device),
        torch.zeros(width, dtype=shape.dtype, device=shape.device),
    )
