"""One row of a decoding: a request, its answer so far, what it holds, and what it is to read next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from memgen.backbone.kv_cache import Prefix
from memgen.backbone.lora import Lora
from memgen.backbone.row_caches import CacheRow
from memgen.generation.draws import Alternative, Draws
from memgen.generation.reading import TextReading
from memgen.generation.requests import Decision, DrawnTokens, Generation, GenerationRequest, Timings
from memgen.memory.weights import Memory
from memgen.text.delimiters import DelimiterMatcher
from memgen.text.stream import TextStream


class InsertionKind(NamedTuple):
    """What rows have in common that can weave in one part of a pass."""

    form: str
    at_prompt_end: bool
    reread: int
    """Tokens that the weaver reads again."""
    latents: int

    @property
    def woven(self) -> int:
        """Tokens that it adds to the row's context."""
        return self.reread + self.latents


@dataclass
class Clock:
    """When a row came, and the seconds of the steps that it was part of, by what they were spent on."""

    started: float
    prompt: float = 0.0
    trigger: float = 0.0
    weave: float = 0.0
    decode: float = 0.0
    first_token: float = 0.0
    total: float = 0.0

    def timings(self) -> Timings:
        return Timings(self.prompt, self.trigger, self.weave, self.decode, self.first_token, self.total)


@dataclass
class Row:
    """A request and its answer so far."""

    number: int
    request: GenerationRequest
    memory: Memory | None
    matcher: DelimiterMatcher | None
    text: TextStream
    draws: Draws
    context: list[int]
    """Prompt and answer; the last one is the newest token, not yet encoded."""
    clock: Clock
    undecided: bool = False
    """Its memory is chosen once its prompt is read."""
    prompt: TextReading | None = None
    """Its prompt up to the last token, until it has a row of the cache."""
    cue_reading: TextReading | None = None
    cue: Prefix | None = None
    """What the weaver reads beside the row's cache."""
    slots: CacheRow | None = None
    state: Tensor | None = None
    """`(H,)` of the last token that was read."""
    decisions: list[Decision] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[tuple[Alternative, ...]] = field(default_factory=list)
    """Likeliest tokens at each place, on request."""
    drawn_logprobs: list[float] = field(default_factory=list)
    """Where they are recorded and not the model's own; the end token's too."""
    end: tuple[int, float | None] | None = None
    """The token that ended the answer, and its log probability on request."""
    finish_reason: str | None = None

    @property
    def new_tokens(self) -> int:
        return len(self.context) - len(self.request.prompt_ids)

    @property
    def form(self) -> str | None:
        return self.memory.config.form if self.memory is not None else None

    @property
    def reader(self) -> Lora | None:
        """The adapter that is on for all that the reasoner reads and writes; None is the bare base."""
        return self.memory.reader if self.memory is not None else None

    @property
    def reread(self) -> Sequence[int]:
        """What the weaver reads again in an insertion here: something at the prompt's end, nothing later."""
        if self.memory is None or self.new_tokens:
            return ()
        return self.memory.config.tokens_to_reread(self.request.prompt_ids)

    @property
    def is_read(self) -> bool:
        """Whether all that it needs in front of its first token has been read."""
        return all(reading is None or reading.done for reading in (self.prompt, self.cue_reading))

    @property
    def cache_row(self) -> CacheRow:
        if self.slots is None:
            raise RuntimeError("a row whose prompt is not read has no place in a cache")
        return self.slots

    @property
    def woven_memory(self) -> Memory:
        if self.memory is None:
            raise RuntimeError("a row without memory can neither decide nor weave")
        return self.memory

    @property
    def kind_of_trigger(self) -> tuple[str, str]:
        memory = self.woven_memory
        return memory.decides, memory.config.form

    @property
    def kind_of_insertion(self) -> InsertionKind:
        """Kind of the insertion that it would make now."""
        config = self.woven_memory.config
        at_prompt_end = self.new_tokens == 0
        latents = config.latents if at_prompt_end else config.inference_latents
        return InsertionKind(config.form, at_prompt_end, len(self.reread), latents)

    @property
    def budget(self) -> int:
        """Insertions that may follow the prompt's."""
        most, wanted = self.woven_memory.config.max_insertions, self.request.intervention.budget
        return most if wanted is None else min(most, wanted)

    @property
    def weaves_in_part(self) -> bool:
        """Whether an insertion takes a pass of its own, as which of its latents stay is known only behind it."""
        return self.form == "cache" and self.request.intervention.keep is not None

    def forced_decision(self) -> bool | None:
        """What an intervention decides here in place of the trigger; None if nothing."""
        decide = self.request.intervention.decide
        return None if decide is None else decide(len(self.decisions))

    def reads_cue_from_cache(self) -> bool:
        """Whether an insertion of form `cache` may look at a cue."""
        if self.memory is None or not self.request.cue_ids:
            return False
        return self.memory.config.form == "cache" and self.memory.config.trigger != "never"

    def at_decision_point(self) -> bool:
        """The prompt's end, or a sentence's while the budget lasts."""
        if self.memory is None or self.memory.config.trigger == "never" or self.finish_reason is not None:
            return False
        if self.new_tokens == 0:
            return True
        budget = self.budget
        if not budget or self.matcher is None or not self.matcher.ends_sentence(self.context, len(self.context) - 1):
            return False
        return sum(d.invoked for d in self.decisions[1:]) < budget

    def generation(self) -> Generation:
        """The answer as it is."""
        end_token, end_logprob = self.end or (None, None)
        return Generation(
            token_ids=tuple(self.context[len(self.request.prompt_ids) :]),
            text=self.text.text,
            finish_reason=self.finish_reason or "cancelled",
            decisions=tuple(self.decisions),
            prompt_tokens=len(self.request.prompt_ids),
            timings=self.clock.timings(),
            logprobs=tuple(self.logprobs) if self.request.sampling.logprobs else None,
            drawn=self._drawn() if self.request.sampling.record else None,
            alternatives=tuple(self.alternatives) if self.request.sampling.top_logprobs else None,
            end_token=end_token,
            end_logprob=end_logprob if self.request.sampling.logprobs else None,
            stop_string=self.text.stop_string,
        )

    def _drawn(self) -> DrawnTokens:
        tokens, logprobs = self.context[len(self.request.prompt_ids) :], list(self.logprobs)
        if self.end is not None:
            tokens = [*tokens, self.end[0]]
            logprobs += [] if self.end[1] is None else [self.end[1]]
        known = self.drawn_logprobs if len(self.drawn_logprobs) == len(tokens) else None
        return DrawnTokens(tuple(tokens), tuple(logprobs), None if known is None else tuple(known))
