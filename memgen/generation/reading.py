"""Texts that are read for rows, some tokens in each pass: prompts up to their last token, and cues.

The base reads without any adapter, so a text that several rows need is read once, and one that begins like another is
read from where they part. A version of form `lora` reads prompts for itself, and shares them among its own rows alone.
A long text does not keep a short one waiting, nor do short ones a long one: of the tokens of a pass half go to the
oldest, the others to those with the fewest left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memgen.backbone.decoder import Decoder, DecoderPart
from memgen.backbone.kv_cache import Prefix
from memgen.backbone.lora import BARE_READER, Lora, LoraTokens
from memgen.backbone.prompt_cache import WORTH_A_PASS, PromptCache, TokenIds, common_tokens, empty_prefix
from memgen.backbone.row_caches import CacheRow, RowCaches


class TextReading:
    """One text under way. It ends as a row of the caches, or as a prefix that was known."""

    def __init__(self, ids: TokenIds, reader: Lora | None) -> None:
        """`reader` is None for the bare base."""
        self.ids = ids
        self.reader = reader
        self.users = 1
        self.row: CacheRow | None = None
        """Where what was read stands; None before the first token, and where `prefix` is all of it."""
        self.prefix: Prefix | None = None
        """What is known: the whole text's if `done`, else that of its start."""
        self.state: Tensor | None = None
        """`(H,)` of the last token, once the text is read."""
        self.behind: TextReading | None = None
        """Another that begins alike, which is read first up to `shared` tokens."""
        self.shared = 0

    @property
    def key(self) -> tuple[int, TokenIds]:
        """Who reads, and what."""
        return _number(self.reader), self.ids

    @property
    def done(self) -> bool:
        return self.state is not None

    @property
    def tokens_read(self) -> int:
        if self.row is not None:
            return self.row.length
        return self.prefix.tokens if self.prefix is not None else 0

    @property
    def tokens_left(self) -> int:
        return 0 if self.done else len(self.ids) - self.tokens_read


@dataclass(frozen=True)
class Chunk:
    """What one pass reads of a text."""

    reading: TextReading
    tokens: int

    @property
    def ids(self) -> TokenIds:
        start = self.reading.tokens_read
        return self.reading.ids[start : start + self.tokens]


class Readings:
    """All texts that the rows of one `Decoding` need."""

    def __init__(self, decoder: Decoder, caches: RowCaches, prompts: PromptCache) -> None:
        self._decoder, self._caches, self._prompts = decoder, caches, prompts
        self._active: dict[tuple[int, TokenIds], TextReading] = {}
        """Oldest first; those that are read stay while somebody may still need them."""
        self.read_tokens = 0
        """Tokens read by passes, of all texts."""

    @property
    def tokens_left(self) -> int:
        return sum(reading.tokens_left for reading in self._active.values())

    def want(self, ids: TokenIds, reader: Lora | None = None) -> TextReading:
        """The reading of a text, begun or joined. Each call is to be paid back by `release`.

        Args:
            reader: the adapter that is on for all of it; None is the bare base.
        """
        reading = self._active.get((_number(reader), ids))
        if reading is not None:
            reading.users += 1
            self._prompts.reused_tokens += len(ids)
            return reading
        reading = TextReading(ids, reader)
        self._active[reading.key] = reading
        try:
            self._begin(reading)
        except Exception:  # no memory is left, as a rule: nobody gets to know of the reading, and so would release it
            self.release(reading)
            raise
        return reading

    def release(self, reading: TextReading) -> None:
        """One user less; what nobody needs any more is dropped."""
        reading.users -= 1
        if reading.users:
            return
        self._follow(reading, leaving=True)
        del self._active[reading.key]
        if reading.row is not None:
            self._caches.close(reading.row)
            reading.row = None

    def take_row(self, reading: TextReading, slots: int) -> CacheRow:
        """A row of its own for one user of a text that is read, who releases it by this."""
        if reading.row is None:
            row = self._caches.filled(reading.prefix or empty_prefix(self._decoder), slots)
        elif reading.users > 1:
            row = self._caches.copied(reading.row, len(reading.ids), slots)
        else:
            self._follow(reading, leaving=True)
            row, reading.row = reading.row, None
        self.release(reading)
        return row

    def take_prefix(self, reading: TextReading) -> Prefix:
        """What was read, for one user of the text, who releases it by this."""
        if reading.prefix is None or reading.prefix.tokens < len(reading.ids):
            reading.prefix = self._prefix(reading)
        prefix = reading.prefix
        self.release(reading)
        return prefix

    def plan(self, most: int) -> list[Chunk]:
        """What the next pass reads, at most so many tokens; up to half as many again where they end a text, which then
        waits for no pass of its own."""
        reading = [each for each in self._active.values() if each.tokens_left and each.behind is None]
        shares: dict[int, int] = {}
        if reading:
            shares[0] = min(reading[0].tokens_left, -(-most // 2))
        for place in (*sorted(range(len(reading)), key=lambda n: reading[n].tokens_left), 0):
            room = most - sum(shares.values())
            if place < len(reading) and room > 0:
                got = shares.get(place, 0)
                shares[place] = got + min(reading[place].tokens_left - got, room)
        for place, tokens in shares.items():
            if 0 < reading[place].tokens_left - tokens <= most // 2:
                shares[place] = reading[place].tokens_left
                break
        return [Chunk(reading[place], tokens) for place, tokens in sorted(shares.items()) if tokens]

    def prepare(self, chunks: Sequence[Chunk]) -> None:
        """Have room for what a pass reads; rows may move."""
        for chunk in chunks:
            reading = chunk.reading
            # A text gets room for all of it, and for the token behind it.
            slots = len(reading.ids) + 1
            if reading.row is None:
                start, reading.prefix = reading.prefix, None
                reading.row = self._caches.open(slots) if start is None else self._caches.filled(start, slots)

    def part(self, chunk: Chunk) -> DecoderPart:
        row = _row(chunk.reading)
        ids = torch.tensor([chunk.ids], dtype=torch.long, device=self._caches.shape.device)
        reader = chunk.reading.reader
        adapters = None if reader is None else LoraTokens.everywhere(reader)
        return DecoderPart(self._decoder.embed(ids), row.cache.window([row.place], chunk.tokens), adapters)

    def note(self, chunk: Chunk, hidden: Tensor) -> None:
        """Count what a pass has read; `hidden` `(1, N, H)` is what it made of it."""
        reading, row = chunk.reading, _row(chunk.reading)
        row.cache.advance([row.place], [chunk.tokens])
        self.read_tokens += chunk.tokens
        if row.length == len(reading.ids):
            reading.state = hidden[0, -1].clone()
            if self._prompts.has_room(len(reading.ids)):
                reading.prefix = self._prefix(reading)
                self._prompts.keep(reading.ids, reading.prefix, _number(reading.reader))
        self._follow(reading)

    def _begin(self, reading: TextReading) -> None:
        """Find out what is known of a text, and which other it begins like."""
        ids, reader = reading.ids, _number(reading.reader)
        whole = empty_prefix(self._decoder) if not ids else self._prompts.find(ids, reader)
        if whole is not None:
            reading.prefix, reading.state = whole, whole.state
            return
        other, shared = self._most_alike(reading)
        start = self._prompts.find_start(ids, reader)
        reading.prefix = start
        if other is not None and shared >= (start.tokens if start else 0) + WORTH_A_PASS:
            reading.behind, reading.shared = other, shared
            self._follow(other)

    def _follow(self, reading: TextReading, *, leaving: bool = False) -> None:
        """Let others that begin alike go on by themselves, from what is read, once it is what they share. Of those that
        wait for more of one that leaves, the one that shares the most goes on, and the others wait for that."""
        followers = [other for other in self._active.values() if other.behind is reading]
        heir = max(followers, key=lambda other: other.shared, default=None) if leaving else None
        for other in followers:
            if heir is not None and other is not heir and reading.tokens_read + WORTH_A_PASS <= other.shared:
                other.behind = heir
                continue
            if not (leaving or reading.tokens_read >= other.shared):
                continue
            other.behind = None
            known = min(reading.tokens_read, other.shared)
            if known <= (other.prefix.tokens if other.prefix else 0):
                continue
            self._prompts.reused_tokens += known - (other.prefix.tokens if other.prefix else 0)
            if reading.row is not None:
                other.row, other.prefix = self._caches.copied(reading.row, known, len(other.ids) + 1), None
            elif reading.prefix is not None:
                other.prefix = Prefix(reading.prefix.kv[:, :, :, :known], reading.prefix.state)

    def _most_alike(self, reading: TextReading) -> tuple[TextReading | None, int]:
        """Another of the same reader that is read or being read, and how many tokens it shares with this one."""
        best, most = None, 0
        for other in self._active.values():
            alike = other is not reading and other.reader is reading.reader
            shared = common_tokens(other.ids, reading.ids[:-1]) if alike else 0
            if shared > most:
                best, most = other, shared
        return best, most

    def _prefix(self, reading: TextReading) -> Prefix:
        row = _row(reading)
        if reading.state is None:
            raise RuntimeError("a text that is not read yet has no prefix")
        return Prefix(row.cache.read(row.place, len(reading.ids)), reading.state)


def _number(reader: Lora | None) -> int:
    return BARE_READER if reader is None else reader.number


def _row(reading: TextReading) -> CacheRow:
    if reading.row is None:
        raise RuntimeError("a text that nobody has begun to read has no row")
    return reading.row
