"""One answer, made of the tokens that a server sends: where it ends, its text, and what is reported of it."""

import time
from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from api.inference.vllm.memories import WovenMemory
from api.inference.vllm.wire import Token
from memgen.generation.draws import Alternative
from memgen.generation.requests import DrawnTokens, Generation, Timings
from memgen.generation.sampling import Sampling
from memgen.text.stream import TextStream


class VllmAnswer:
    """It ends as an answer of `memgen.generation` does: at an end token, a stop string, or its limit of tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        stop_ids: Collection[int],
    ) -> None:
        self._tokenizer, self._prompt_ids = tokenizer, prompt_ids
        self._sampling, self._stop_ids = sampling, stop_ids
        self._text = TextStream(tokenizer, sampling.stop, least_tokens=sampling.min_tokens)
        self._tokens: list[Token] = []
        self._end: Token | None = None
        self._started = time.perf_counter()
        self._first_token = self._total = 0.0
        self.finish_reason: str | None = None

    @property
    def has_begun(self) -> bool:
        return bool(self._tokens) or self.finish_reason is not None

    def take(self, token: Token) -> str:
        """The text that the token makes certain; nothing once the answer has ended."""
        if self.finish_reason is not None:
            return ""
        self._first_token = self._first_token or time.perf_counter() - self._started
        if token.token_id in self._stop_ids:
            self._end = token
            return self.finish("stop")
        self._tokens.append(token)
        piece = self._text.push(token.token_id)
        if self._text.stopped:
            return piece + self.finish("stop")
        if len(self._tokens) >= self._sampling.max_new_tokens:
            return piece + self.finish("length")
        return piece

    def finish(self, reason: str) -> str:
        """End it, if it has not ended; the text that was held back."""
        if self.finish_reason is not None:
            return ""
        self.finish_reason = reason
        self._total = time.perf_counter() - self._started
        return self._text.finish()

    def generation(self, memory: WovenMemory | None) -> Generation:
        ids = [token.token_id for token in self._tokens]
        ended = [*ids, self._end.token_id] if self._end else ids
        wants_logprobs = self._sampling.logprobs
        return Generation(
            token_ids=tuple(ids),
            text=self._text.text,
            finish_reason=self.finish_reason or "cancelled",
            decisions=memory.decisions(self._tokenizer, self._prompt_ids, ended) if memory else (),
            prompt_tokens=len(self._prompt_ids),
            timings=Timings(prompt=self._first_token, first_token=self._first_token, total=self._total),
            logprobs=tuple(_known(token) for token in self._tokens) if wants_logprobs else None,
            alternatives=self._alternatives() if self._sampling.top_logprobs else None,
            end_token=self._end.token_id if self._end else None,
            end_logprob=_known(self._end) if wants_logprobs and self._end else None,
            stop_string=self._text.stop_string,
            drawn=self._drawn() if self._sampling.record else None,
        )

    def _drawn(self) -> DrawnTokens:
        """The server reports the model's own log probabilities, whatever it drew from."""
        tokens = [*self._tokens, self._end] if self._end else self._tokens
        known = [token.logprob for token in tokens if token.logprob is not None]
        logprobs = tuple(known) if len(known) == len(tokens) else None
        return DrawnTokens(tuple(token.token_id for token in tokens), logprobs)

    def _alternatives(self) -> tuple[tuple[Alternative, ...], ...]:
        most = self._sampling.top_logprobs  # the chosen token comes beside them, where it is none of them
        return tuple(tuple(Alternative(*each) for each in token.top[:most]) for token in self._tokens)


def _known(token: Token) -> float:
    return token.logprob if token.logprob is not None else float("nan")
