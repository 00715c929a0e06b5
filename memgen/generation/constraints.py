"""Holding answers to a grammar while they are drawn: compiled grammars, and what each forbids next.

llguidance computes which tokens may follow; research/constraints.md has why it was taken. A grammar costs milliseconds
to compile, as a rule, and is kept; `prepare` does that beside the model's thread. What a grammar may cost is bounded.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from memgen.backbone.loading import Backbone, BaseFiles
from memgen.errors import ConstraintUnsupported, SchemaRefused
from memgen.text.answer_grammars import Constraint, grammar_of
from memgen.text.profile import BaseProfile
from memgen.text.reasoning import opens_reasoning

_KEPT_GRAMMARS = 64
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,  # 20 ms
    step_lexer_fuel=500_000,
    step_max_items=50_000,
    max_lexer_states=50_000,  # 1 to 2 KB each
    max_grammar_size=200_000,
    verbose_errors=False,
)
_FAULT = "failed to compile JSON schema: "
_WARNING = "WARNING"


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, *, optional: bool = False) -> None:
        self._matcher = matcher
        self._optional = optional

    @property
    def failed(self) -> bool:
        """A step would have cost more than is allowed: the answer can't go on, though it is not whole."""
        return not self._optional and self._matcher.is_error()

    def forbidden(self, vocabulary: int) -> Tensor:
        """Which of so many tokens can't come next, `(V,)` bool; all but end tokens where the answer can't go on."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._optional and self._matcher.is_error():
            return torch.zeros(vocabulary, dtype=torch.bool)
        allowed = np.unpackbits(bits, count=min(vocabulary, 8 * len(bits)), bitorder="little")
        forbidden = torch.ones(vocabulary, dtype=torch.bool)
        forbidden[: len(allowed)] = torch.from_numpy(allowed == 0)
        return forbidden

    def take(self, token: int) -> None:
        """The answer goes on with the token, which was allowed."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)


class Grammars:
    """Grammars compiled for one tokenizer, the newest kept. May be used by several threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> None:
        """Raises ConstraintUnsupported for a tokenizer whose tokens can't be told apart."""
        self._tokenizer = _tokens_of(tokenizer, stops)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> Self:
        """The grammars for this tokenizer (the object), shared so that what was compiled is kept."""
        return cls(tokenizer, stops)

    def matcher(self, grammar: str, *, optional: bool = False) -> Matcher:
        """A matcher at the beginning of an answer.

        Args:
            optional: where a step would cost too much, the answer goes on freely.

        Raises:
            SchemaRefused: the grammar can't be compiled within its limits, or nothing satisfies it.
        """
        with self._lock:
            if (known := self._kept.get(grammar)) is not None:
                self._kept.move_to_end(grammar)
                return Matcher(known.deep_copy(), optional=optional)
        compiled = self._compile(grammar)  # not within the lock: others must not wait for it
        with self._lock:
            self._kept[grammar] = compiled
            while len(self._kept) > _KEPT_GRAMMARS:
                self._kept.popitem(last=False)
            return Matcher(compiled.deep_copy(), optional=optional)

    def _compile(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise SchemaRefused(_fault(matcher.get_error()))
        begun = matcher.deep_copy()
        begun.compute_bitmask()
        if begun.is_error():
            raise SchemaRefused("the schema is too complex to be held to, or no JSON satisfies it")
        return matcher


def prepare(base: Backbone | BaseFiles, constraint: Constraint, prompt_ids: Sequence[int]) -> str | None:
    """Compile what an answer behind the prompt is held to, so that the model's thread need not.

    Returns:
        The grammar, as `memgen.text.answer_grammars` writes it; None where an optional one can't be held to.

    Raises:
        SchemaRefused: a schema that can't be held to; the message begins with the field of the request.
        ConstraintUnsupported: the base's tokenizer can't be held to anything.
    """
    grammar = _grammar(base.profile, constraint, prompt_ids)
    return None if _held(base.profile, constraint, grammar) is None else grammar


def matcher_for(base: Backbone | BaseFiles, constraint: Constraint | None, prompt_ids: Sequence[int]) -> Matcher | None:
    """What holds an answer behind the prompt to the constraint; None if nothing does. Raises as `prepare`."""
    if constraint is None:
        return None
    return _held(base.profile, constraint, _grammar(base.profile, constraint, prompt_ids))


@lru_cache(maxsize=1024)
def schema_fault(schema: str) -> str | None:
    """Why no answer can be held to a schema, from `memgen.text.json_schemas.grammar_schema`; None if one can."""
    message = LLMatcher.validate_grammar(f"start: %json {schema}", limits=_LIMITS)
    return _fault(message) if message and not message.startswith(_WARNING) else None


def _grammar(profile: BaseProfile, constraint: Constraint, prompt_ids: Sequence[int]) -> str:
    opened = opens_reasoning(profile.tokenizer, prompt_ids)
    return grammar_of(constraint, profile, opens_reasoning=opened)


def _held(profile: BaseProfile, constraint: Constraint, grammar: str) -> Matcher | None:
    try:
        grammars = Grammars.of(profile.tokenizer, profile.stop_token_ids)
        return grammars.matcher(grammar, optional=constraint.optional)
    except (SchemaRefused, ConstraintUnsupported) as error:
        if constraint.optional:
            return None
        raise type(error)(f"{constraint.origin}: {error}") from error


def _tokens_of(tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> LLTokenizer:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConstraintUnsupported(
            f"the base's tokenizer is a {type(tokenizer).__name__}, which response_format and tool_choice can't hold "
            "answers with; expected a fast tokenizer (tokenizer.json). Leave them out, or serve another base."
        )
    try:
        return from_tokenizer(tokenizer, eos_token=sorted(stops))
    except Exception as error:  # whatever the library meets in a foreign tokenizer
        raise ConstraintUnsupported(
            f"the base's tokenizer can't hold answers to response_format or tool_choice: {error}. Leave them out, or "
            "serve another base."
        ) from error


def _fault(message: str) -> str:
    """What of the compiler's message is of use to who wrote the schema."""
    text = message.partition(_FAULT)[2] or message
    lines = [line.strip() for line in text.split("\n")]
    return " ".join(line for line in lines if line and not line.startswith(("1 |", "^", "at ")))[:500]
