"""Rows that are decoded together, and one step for one token of each. Rows join and leave between steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from memgen.backbone.prompt_cache import PromptCache
from memgen.backbone.row_caches import RowCaches
from memgen.errors import ModelError
from memgen.generation.constraints import matcher_for
from memgen.generation.draws import Chosen, Draws, choose
from memgen.generation.passes import Held, decide_rows, read_together
from memgen.generation.reading import Chunk, Readings
from memgen.generation.requests import Generation, GenerationRequest, check_fits
from memgen.generation.row import Clock, Row
from memgen.memory.host import AdapterHost
from memgen.memory.weaving import Streams
from memgen.text.delimiters import DelimiterMatcher
from memgen.text.stream import TextStream

ALONE_TOKENS = 256
"""Prompt tokens that a step reads while no row is decoded: more would make a pass no cheaper by the token."""


class Decoding:
    """It starts empty. A row that joins has its prompt read in the passes of those that are decoded, some tokens in
    each step, and is decoded behind it; nobody's answer depends on who joins or leaves beside it."""

    def __init__(
        self,
        host: AdapterHost,
        *,
        prompts: PromptCache | None = None,
        on_text: Callable[[int, str], None] | None = None,
        chunk_tokens: int = ALONE_TOKENS,
        most_bytes: int | None = None,
    ) -> None:
        """
        Args:
            prompts: prompts already read; None reads a prompt once for those that need it at the same time.
            on_text: called with a row's number and text as it becomes final.
            chunk_tokens: prompt tokens that a step reads at most while other rows are decoded, which wait for them.
            most_bytes: beyond these the caches hold nothing but what their rows need.
        """
        self._host, self._decoder = host, host.backbone.decoder
        self._on_text = on_text
        self._stops = host.backbone.stop_token_ids
        self._chunk_tokens = chunk_tokens
        caches = RowCaches(self._decoder.kv_shape, most_bytes)
        known = prompts if prompts is not None else PromptCache(self._decoder, max_bytes=0)
        self._held = Held(self._decoder, caches, Streams(host, most_bytes), Readings(self._decoder, caches, known))
        self._rows: dict[int, Row] = {}
        """Every row that has not ended, in the order in which they joined."""
        self._going: list[Row] = []
        """Rows that are decoded; of the others the prompts are being read."""
        self._catching_up: list[Row] = []
        """Rows whose memory of form `embedding` is still reading the prompt, some tokens in each step."""
        self._oldest_first = False
        """Whose stream read last while some catch up: the oldest row's, or that with the fewest tokens left."""
        self._ended: list[tuple[int, Generation | Exception]] = []
        self._joined = 0
        self.generated_tokens = 0
        """Tokens of all rows, since it was made."""

    @property
    def done(self) -> bool:
        """Whether no row is left."""
        return not self._rows

    @property
    def running(self) -> int:
        """Rows that are decoded now; the others' prompts are being read."""
        return len(self._going)

    @property
    def read_tokens(self) -> int:
        """Prompt tokens that were read for all rows, since it was made."""
        return self._held.readings.read_tokens

    @property
    def cache_bytes(self) -> int:
        return self._held.bytes

    def unfinished(self) -> list[int]:
        """Numbers of the rows still being answered."""
        return list(self._rows)

    @torch.inference_mode()
    def add(self, request: GenerationRequest, *, undecided: bool = False) -> int:
        """A new row, which joins with the next step; its number, from 0.

        Args:
            undecided: its memory is chosen by `choose` once its prompt is read.

        Raises:
            PromptTooLong: prompt, memory and answer of the request exceed the model's context.
        """
        check_fits(self._host, request)
        sampling = request.sampling
        text = TextStream(self._host.backbone.tokenizer, sampling.stop, least_tokens=sampling.min_tokens)
        held = matcher_for(self._host.backbone, sampling.constraint, request.prompt_ids)
        draws = Draws(sampling, request.prompt_ids, stops=self._stops, matcher=held)
        clock = Clock(time.perf_counter())
        row = Row(self._joined, request, None, None, text, draws, [*request.prompt_ids], clock, undecided)
        row.memory = None if undecided or request.memory is None else self._host.memories[request.memory]
        row.prompt = self._held.readings.want(request.prompt_ids[:-1], row.reader)
        try:
            self._equip(row)
        except Exception:  # no memory is left for its cue, as a rule: nobody gets to know of the row
            self._held.readings.release(row.prompt)
            raise
        self._rows[row.number] = row
        self._joined += 1
        return row.number

    def parked(self) -> list[tuple[int, Tensor]]:
        """Rows that wait for `choose`, and the states `(H,)` of their prompts up to the last token."""
        return [
            (row.number, row.prompt.state)
            for row in self._rows.values()
            if row.undecided and row.prompt is not None and row.prompt.state is not None
        ]

    @torch.inference_mode()
    def choose(self, number: int, memory: str | None, cue_ids: tuple[int, ...] = ()) -> None:
        """Decide which memory answers a parked row.

        Raises:
            PromptTooLong: with that memory the request exceeds the model's context.
        """
        row = self._rows[number]
        request = replace(row.request, memory=memory, cue_ids=cue_ids)
        check_fits(self._host, request)
        row.request, row.undecided = request, False
        row.memory = None if memory is None else self._host.memories[memory]
        if row.reader is not None and row.prompt is not None:
            # What the bare base has read, to find the memory, is of no use to one that reads for itself.
            bare, row.prompt = row.prompt, self._held.readings.want(request.prompt_ids[:-1], row.reader)
            self._held.readings.release(bare)
        self._equip(row)

    @torch.inference_mode()
    def cancel(self, number: int) -> None:
        """End a row now; its answer is what it has. A row that has ended stays as it is."""
        row = self._rows.get(number)
        if row is not None:
            self._finish(row, "cancelled")

    @torch.inference_mode()
    def step(self) -> bool:
        """One more token for every row whose prompt is read, with memory woven in front of it where a trigger decides
        so, and some tokens of the prompts of the others. False if there was nothing to do."""
        began = time.perf_counter()
        self._begin()
        rows = list(self._going)
        chunks = self._held.readings.plan(self._chunk_tokens if rows else max(ALONE_TOKENS, self._chunk_tokens))
        caught_up = self._catch_up()
        if not rows and not chunks:
            return caught_up
        invoked = decide_rows(self._held, rows)
        decided = time.perf_counter()
        read_together(self._held, rows, invoked, chunks)
        if rows:
            self._choose_tokens(rows)
        self._note_seconds(rows, chunks, decided - began, time.perf_counter() - decided, wove=bool(invoked))
        for row in rows:
            if row.finish_reason is not None and row.number in self._rows:
                self._leave(row, row.generation())
        return True

    def ended(self) -> list[tuple[int, Generation | Exception]]:
        """Answers that have ended since the last call, by number of row; an error of a row's own in place of it."""
        ended, self._ended = self._ended, []
        return ended

    def _equip(self, row: Row) -> None:
        """Give a row what its memory needs, if it has one."""
        if row.memory is None:
            return
        if row.memory.config.max_insertions:
            row.matcher = DelimiterMatcher.of(self._host.backbone.tokenizer, row.memory.config.delimiters)
        if row.reads_cue_from_cache():
            row.cue_reading = self._held.readings.want(row.request.cue_ids)

    def _begin(self) -> None:
        """Let the rows be decoded whose prompts, and cues, are read."""
        for row in self._rows.values():
            if row.prompt is None or row.undecided or not row.is_read:
                continue
            if row.cue_reading is not None:
                row.cue, row.cue_reading = self._held.readings.take_prefix(row.cue_reading), None
            row.state = row.prompt.state
            woven = row.kind_of_insertion.woven if row.at_decision_point() else 0
            row.slots = self._held.readings.take_row(row.prompt, len(row.context) + woven)
            row.prompt = None
            if row.memory is not None and row.form == "embedding":
                self._held.streams.open(row.number, row.memory)
                if row.request.cue_ids:
                    self._held.streams.add_cue(row.number, row.request.cue_ids)
                self._held.streams.add_tokens(row.number, row.request.prompt_ids)
                self._catching_up.append(row)
            else:
                self._going.append(row)
        self._go_on()

    def _catch_up(self) -> bool:
        """Let a memory that reads the prompt in a stream of its own read some more of it: the oldest row's and the one
        that has the fewest tokens left by turns, so that neither long nor short ones wait for all of the others."""
        if not self._catching_up:
            return False
        self._oldest_first = not self._oldest_first
        left = {row.number: self._held.streams.behind(row.number) for row in self._catching_up}
        number = self._catching_up[0].number if self._oldest_first else min(left, key=lambda number: left[number])
        self._held.streams.catch_up(number, self._chunk_tokens)
        return True

    def _go_on(self) -> None:
        """Let rows be decoded whose memory is behind by no more than one step may take."""
        for row in list(self._catching_up):
            if self._held.streams.behind(row.number) <= self._chunk_tokens:
                self._catching_up.remove(row)
                self._going.append(row)

    def _choose_tokens(self, rows: Sequence[Row]) -> None:
        """The next token of each row, from its state. What fails for one row ends that row."""
        states = torch.stack([row.state for row in rows if row.state is not None])
        sound = states.isfinite().all(dim=-1).tolist()
        if not all(sound):
            for row in (row for row, is_sound in zip(rows, sound, strict=True) if not is_sound):
                self._leave(row, _no_numbers(row))
            rows, states = [row for row in rows if row.number in self._rows], states[sound]
        if not rows:
            return
        logits = self._decoder.logits(states)
        for row, chosen in zip(rows, choose(logits, [row.draws for row in rows]), strict=True):
            try:
                self._take(row, chosen)
            except Exception as error:  # whatever it is, the other rows' answers are whole
                self._leave(row, error)
        self.generated_tokens += len(rows)

    def _take(self, row: Row, chosen: Chosen) -> None:
        row.clock.first_token = row.clock.first_token or time.perf_counter() - row.clock.started
        token = chosen.token
        if chosen.drawn_logprob is not None:
            row.drawn_logprobs.append(chosen.drawn_logprob)
        if token in self._stops:
            row.end = token, chosen.logprob
            self._end(row, "length" if row.draws.failed else "stop")
            return
        row.context.append(token)
        if chosen.logprob is not None:
            row.logprobs.append(chosen.logprob)
            row.alternatives.append(chosen.alternatives)
        piece = row.text.push(token)
        if self._on_text and piece:
            self._on_text(row.number, piece)
        if row.text.stopped:
            self._end(row, "stop")
        elif row.new_tokens >= row.request.sampling.max_new_tokens:
            self._end(row, "length")
        elif row.form == "embedding":
            self._held.streams.add_tokens(row.number, [token])

    def _end(self, row: Row, reason: str) -> None:
        row.finish_reason = reason
        row.clock.total = time.perf_counter() - row.clock.started
        rest = row.text.finish()
        if self._on_text and rest:
            self._on_text(row.number, rest)

    def _finish(self, row: Row, reason: str) -> None:
        self._end(row, reason)
        self._leave(row, row.generation())

    def _leave(self, row: Row, result: Generation | Exception) -> None:
        """Drop a row and all that it holds."""
        del self._rows[row.number]
        self._going = [other for other in self._going if other is not row]
        self._catching_up = [other for other in self._catching_up if other is not row]
        if row.slots is not None:
            self._held.caches.close(row.slots)
        for reading in (row.prompt, row.cue_reading):
            if reading is not None:
                self._held.readings.release(reading)
        row.slots = row.prompt = row.cue_reading = None
        self._held.streams.close(row.number)
        self._ended.append((row.number, result))

    def _note_seconds(
        self, rows: Sequence[Row], chunks: Sequence[Chunk], deciding: float, passing: float, *, wove: bool
    ) -> None:
        """What a step took, for every row that it was a step of."""
        for row in rows:
            row.clock.trigger += deciding
            if wove:
                row.clock.weave += passing
            else:
                row.clock.decode += passing
        for row in self._rows.values() if chunks else ():
            if row.prompt is not None:
                row.clock.prompt += deciding + passing


def _no_numbers(row: Row) -> ModelError:
    whose = f"memory {row.request.memory}" if row.request.memory is not None else "the bare base"
    return ModelError(
        f"token {row.new_tokens + 1} of an answer of {whose} can't be chosen: its state is NaN or infinite. "
        "The weights are broken or overflow; answer with another version, or with the base in float32."
    )
