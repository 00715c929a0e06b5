"""One row of a batch in the making: a request, its answer so far, and what it is to read next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from memgen.backbone.kv_cache import Prefix
from memgen.generation.draws import Alternative, Draws
from memgen.generation.requests import Decision, GenerationRequest
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
class Row:
    """A request and its answer so far."""

    number: int
    """Number of its request."""
    request: GenerationRequest
    memory: Memory | None
    matcher: DelimiterMatcher | None
    text: TextStream
    draws: Draws
    context: list[int]
    """Prompt and answer; the last one is the newest token, not yet encoded."""
    cue: Prefix | None = None
    """What the weaver reads beside the row's cache."""
    decisions: list[Decision] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[tuple[Alternative, ...]] = field(default_factory=list)
    """Likeliest tokens at each place, on request."""
    end: tuple[int, float | None] | None = None
    """The token that ended the answer, and its log probability on request."""
    finish_reason: str | None = None
    seconds: float = 0.0

    @property
    def new_tokens(self) -> int:
        return len(self.context) - len(self.request.prompt_ids)

    @property
    def form(self) -> str | None:
        return self.memory.config.form if self.memory is not None else None

    @property
    def reread(self) -> Sequence[int]:
        """What the weaver reads again in an insertion here: something at the prompt's end, nothing later."""
        if self.memory is None or self.new_tokens:
            return ()
        return self.memory.config.tokens_to_reread(self.request.prompt_ids)

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
        budget = self.memory.config.max_insertions
        if not budget or self.matcher is None or not self.matcher.ends_sentence(self.context, len(self.context) - 1):
            return False
        return sum(d.invoked for d in self.decisions[1:]) < budget
