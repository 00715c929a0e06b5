"""A batch in the making: rows, their caches, and one step for one token of each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from memgen.backbone.decoder import DecoderPart
from memgen.backbone.kv_cache import SlotCache
from memgen.backbone.lora import LoraTokens
from memgen.backbone.prompt_cache import PromptCache
from memgen.generation.constraints import matcher_for
from memgen.generation.draws import Chosen, Draws, choose
from memgen.generation.requests import Decision, Generation, GenerationRequest, Timings, check_fits
from memgen.generation.row import InsertionKind, Row
from memgen.generation.sampling import decide
from memgen.memory.host import AdapterHost
from memgen.memory.weaving import Streams, grouped, weave_into_cache
from memgen.memory.weights import Memory
from memgen.text.delimiters import DelimiterMatcher
from memgen.text.stream import TextStream


class Decoding:
    """A static batch of requests, decoded step by step. Rows that end leave it once half of it is done."""

    def __init__(
        self,
        host: AdapterHost,
        requests: Sequence[GenerationRequest],
        *,
        prompts: PromptCache | None = None,
        on_text: Callable[[int, str], None] | None = None,
    ) -> None:
        """Reads the prompts. Raises PromptTooLong before anything is computed."""
        self._host, self._decoder = host, host.backbone.decoder
        self._on_text = on_text
        self._stops = host.backbone.stop_token_ids
        self._started = time.perf_counter()
        self._spent = {"prompt": 0.0, "trigger": 0.0, "weave": 0.0, "decode": 0.0}
        self._first_token = 0.0
        for request in requests:
            check_fits(host, request)
        self._rows = [self._row(number, request) for number, request in enumerate(requests)]
        self._all = list(self._rows)
        with self._timed("prompt"):
            cache = prompts if prompts is not None else PromptCache(self._decoder, max_bytes=0)
            cued = [row for row in self._rows if row.reads_cue_from_cache()]
            known = cache.read([*(r.prompt_ids[:-1] for r in requests), *(row.request.cue_ids for row in cued)])
            prefixes = known[: len(requests)]
            for row, cue in zip(cued, known[len(requests) :], strict=True):
                row.cue = cue
            self._slots = SlotCache.of_prefixes(self._decoder.kv_shape, prefixes)
            self._states = torch.stack([prefix.state for prefix in prefixes])
        self._streams: Streams | None = None
        if any(row.form == "embedding" for row in self._rows):
            self._streams = Streams(host, [row.memory if row.form == "embedding" else None for row in self._rows])
            for place, request in enumerate(requests):
                if request.cue_ids:
                    self._streams.add_cue(place, request.cue_ids)
                self._streams.add_tokens(place, request.prompt_ids)

    @property
    def done(self) -> bool:
        return not self._rows

    def unfinished(self) -> list[int]:
        """Numbers of the requests still being answered."""
        return [row.number for row in self._rows if row.finish_reason is None]

    def cancel(self, number: int) -> None:
        """End a request now; it keeps what it has."""
        row = self._all[number]
        if row.finish_reason is None:
            self._finish(row, "cancelled")
            self._leave()

    def step(self) -> None:
        """One more token for every row, with memory woven in front of it where a trigger decides so."""
        if self.done:
            return
        logits = self._advance(self._decide())
        chosen = choose(logits, [row.draws for row in self._rows])
        self._first_token = self._first_token or time.perf_counter() - self._started
        for place, row in enumerate(self._rows):
            if row.finish_reason is None:
                self._take(place, row, chosen[place])
        self._leave()

    def results(self) -> list[Generation]:
        """Answers in the order of the requests."""
        return [self._result(row) for row in self._all]

    def _row(self, number: int, request: GenerationRequest) -> Row:
        memory = self._host.memories[request.memory] if request.memory is not None else None
        tokenizer = self._host.backbone.tokenizer
        matcher = None
        if memory is not None and memory.config.max_insertions:
            matcher = DelimiterMatcher.of(tokenizer, memory.config.delimiters)
        text = TextStream(tokenizer, request.sampling.stop)
        return Row(number, request, memory, matcher, text, self._draws(request), [*request.prompt_ids])

    def _draws(self, request: GenerationRequest) -> Draws:
        held = matcher_for(self._host.backbone, request.sampling.constraint, request.prompt_ids)
        return Draws(request.sampling, request.prompt_ids, stops=self._stops, matcher=held)

    def _decide(self) -> list[int]:
        """Places of the rows that weave now; every decision is noted."""
        deciding = [place for place, row in enumerate(self._rows) if row.at_decision_point()]
        if not deciding:
            return []
        with self._timed("trigger"):
            logits = self._trigger_logits(deciding)
            invoked = []
            for place in deciding:
                row = self._rows[place]
                if place in logits:
                    yes, probability = decide(
                        logits[place], row.request.sampling.trigger_temperature, row.draws.generator
                    )
                else:
                    yes, probability = True, 1.0
                behind = row.form == "embedding"
                row.decisions.append(Decision(len(row.context) - (not behind), probability, yes, 0))
                if yes:
                    invoked.append(place)
        return invoked

    def _trigger_logits(self, places: Sequence[int]) -> dict[int, Tensor]:
        """`(2,)` for each place whose trigger is learned."""
        states: dict[int, Tensor] = {}
        for (kind, form), some in grouped(places, self._kind_of_trigger).items():
            if kind == "head":
                states.update((place, self._states[place]) for place in some)
            elif kind == "lora" and form == "cache":
                # Read without counting it: the newest token's slot is written over by what comes next.
                loras = [trigger for place in some if (trigger := self._memory(place).trigger) is not None]
                adapters = LoraTokens.by_row(loras, 1, self._decoder.kv_shape.device)
                hidden = self._decoder.forward(self._newest(some), self._slots.window(some, 1), adapters)
                states.update(zip(some, hidden[:, -1], strict=True))
            elif kind == "lora" and self._streams is not None:
                states.update(zip(some, self._streams.trigger_states(some), strict=True))
        return {place: self._memory(place).trigger_head(state.float()) for place, state in states.items()}

    def _advance(self, invoked: Sequence[int]) -> Tensor:
        """Encode every row's newest token, with memory woven at the places `invoked`; next logits `(B, V)`.

        One pass over the base's weights for all rows, those that weave and those that do not.
        """
        with self._timed("weave" if invoked else "decode"):
            woven = self._weave_streams(invoked)
            kinds = grouped(range(len(self._rows)), lambda n: self._kind_of_insertion(n) if n in invoked else None)
            # At once, for a window knows its cache's slots as they were when it was made.
            woven_tokens = max((kind.woven for kind in kinds if kind is not None), default=0)
            self._slots.reserve(max(self._slots.lengths) + woven_tokens + 1)
            parts = [self._part(kind, places, woven) for kind, places in kinds.items()]
            states = self._decoder.forward_together(parts)
            for (kind, places), hidden in zip(kinds.items(), states, strict=True):
                self._slots.advance(places, [hidden.shape[1]] * len(places))
                if kind is not None:
                    latents = [woven.get(n, hidden[i, kind.reread : -1]) for i, n in enumerate(places)]
                    self._note_insertions(kind, places, latents)
            order = self._index([place for places in kinds.values() for place in places])
            newest = torch.cat([hidden[:, -1] for hidden in states])
            self._states = newest if len(states) == 1 else newest.new_empty(newest.shape).index_copy(0, order, newest)
            return self._decoder.logits(self._states)

    def _weave_streams(self, invoked: Sequence[int]) -> dict[int, Tensor]:
        """Latents `(K, H)` of form `embedding` by place, which the reasoner has yet to read."""
        latents: dict[int, Tensor] = {}
        if self._streams is None:
            return latents
        for kind, places in grouped(invoked, self._kind_of_insertion).items():
            if kind.form == "embedding":
                latents.update(zip(places, self._streams.weave(places, at_prompt_end=kind.at_prompt_end), strict=True))
        for place, part in latents.items():
            self._streams.add_latents(place, part)
        return latents

    def _part(self, kind: InsertionKind | None, places: Sequence[int], woven: dict[int, Tensor]) -> DecoderPart:
        """What rows read that make the same kind of insertion, or none: their newest tokens last with form `cache`,
        and first with form `embedding`."""
        newest = self._newest(places)
        if kind is None:
            return DecoderPart(newest, self._slots.window(places, 1))
        if kind.form == "cache":
            rows, memories = [self._rows[place] for place in places], [self._memory(place) for place in places]
            reread, cues = self._embed([row.reread for row in rows]), [row.cue for row in rows]
            return weave_into_cache(
                self._slots, places, memories, cues, reread, newest, at_prompt_end=kind.at_prompt_end
            )
        latents = torch.stack([woven[place] for place in places])
        return DecoderPart(torch.cat([newest, latents], dim=1), self._slots.window(places, kind.woven + 1))

    def _note_insertions(self, kind: InsertionKind, places: Sequence[int], latents: Sequence[Tensor]) -> None:
        for place, states in zip(places, latents, strict=True):
            row = self._rows[place]
            kept = states.clone() if row.request.return_latents else None
            row.decisions[-1] = replace(row.decisions[-1], latents=kind.latents, reread=kind.reread, states=kept)

    def _take(self, place: int, row: Row, chosen: Chosen) -> None:
        token = chosen.token
        if token in self._stops:
            row.end = token, chosen.logprob
            self._finish(row, "length" if row.draws.failed else "stop")
            return
        row.context.append(token)
        if chosen.logprob is not None:
            row.logprobs.append(chosen.logprob)
            row.alternatives.append(chosen.alternatives)
        piece = row.text.push(token)
        if self._on_text and piece:
            self._on_text(row.number, piece)
        if row.text.stopped:
            self._finish(row, "stop")
        elif row.new_tokens >= row.request.sampling.max_new_tokens:
            self._finish(row, "length")
        elif self._streams is not None and row.form == "embedding":
            self._streams.add_tokens(place, [token])

    def _finish(self, row: Row, reason: str) -> None:
        row.finish_reason = reason
        row.seconds = time.perf_counter() - self._started
        rest = row.text.finish()
        if self._on_text and rest:
            self._on_text(row.number, rest)

    def _leave(self) -> None:
        """Drop finished rows once they are half of the batch; until then they are computed and ignored."""
        going = [place for place, row in enumerate(self._rows) if row.finish_reason is None]
        if len(going) > len(self._rows) // 2:
            return
        if going:
            self._slots.keep(going)
            self._states = self._states[self._index(going)]
            if self._streams is not None:
                self._streams.keep(going)
        self._rows = [self._rows[place] for place in going]

    def _result(self, row: Row) -> Generation:
        end_token, end_logprob = row.end or (None, None)
        return Generation(
            token_ids=tuple(row.context[len(row.request.prompt_ids) :]),
            text=row.text.text,
            finish_reason=row.finish_reason or "cancelled",
            decisions=tuple(row.decisions),
            prompt_tokens=len(row.request.prompt_ids),
            timings=Timings(**self._spent, first_token=self._first_token, total=row.seconds),
            logprobs=tuple(row.logprobs) if row.request.sampling.logprobs else None,
            alternatives=tuple(row.alternatives) if row.request.sampling.top_logprobs else None,
            end_token=end_token,
            end_logprob=end_logprob,
        )

    def _memory(self, place: int) -> Memory:
        memory = self._rows[place].memory
        if memory is None:
            raise RuntimeError("a row without memory can neither decide nor weave")
        return memory

    def _kind_of_trigger(self, place: int) -> tuple[str, str]:
        memory = self._memory(place)
        return memory.decides, memory.config.form

    def _kind_of_insertion(self, place: int) -> InsertionKind:
        config, row = self._memory(place).config, self._rows[place]
        at_prompt_end = row.new_tokens == 0
        latents = config.latents if at_prompt_end else config.inference_latents
        return InsertionKind(config.form, at_prompt_end, len(row.reread), latents)

    def _newest(self, places: Sequence[int]) -> Tensor:
        return self._embed([[self._rows[place].context[-1]] for place in places])

    def _embed(self, ids: Sequence[Sequence[int]]) -> Tensor:
        return self._decoder.embed(torch.tensor(ids, dtype=torch.long, device=self._decoder.kv_shape.device))

    def _index(self, places: Sequence[int]) -> Tensor:
        return torch.tensor(places, device=self._states.device)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._spent[part] += time.perf_counter() - started
