"""The literal, slow MemGen: the oracle of the golden tests and the baseline of the benchmarks.

One row at a time, and no key or value outlives a token: every new token reads the whole context again. No batch, no
padding, no mask, no slots, no shared weights, and nothing of memgen is imported: that two independent readings of the
method agree is the point.

A cue is text that only the weaver reads, and nothing of it stays. A context is what the reasoner reads, tokens and
latents; this is where the two forms of memory differ:
    CacheContext      latents are keys and values, in front of the token that was the newest when they were woven
    EmbeddingContext  latents are input embeddings, behind that token (as in the public code)
`generate` and `loss` are the same for both.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from tests.reference_memory import ReferenceMemory

__all__ = ["Decision", "ReferenceAnswer", "ReferenceMemory", "ends_in_delimiter", "generate", "loss"]


class Decision(NamedTuple):
    """What the trigger decided at one place."""

    position: int
    """Tokens of prompt and answer in front of the place."""
    invoked: bool
    probability: float
    """Of INVOKE."""


class ReferenceAnswer(NamedTuple):
    tokens: list[int]
    """Without the one that ended the answer."""
    decisions: list[Decision]


@torch.no_grad()
def generate(
    memory: ReferenceMemory | None,
    base: PreTrainedModel,
    prompt: list[int],
    new_tokens: int,
    stop: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
    cue: Sequence[int] = (),
) -> ReferenceAnswer:
    """Greedy answer to a prompt of one token or more."""
    context = open_context(memory, base, prompt, cue)
    answer: list[int] = []
    decisions: list[Decision] = []
    while len(answer) < new_tokens:
        if memory is not None and memory.trigger != "never":
            budget_left = sum(d.invoked for d in decisions[1:]) < memory.max_insertions
            if not answer or (budget_left and ends_in_delimiter(context.tokens, memory.delimiters, tokenizer)):
                decision = ask_trigger(context)
                decisions.append(decision)
                if decision.invoked:
                    context.weave("inference_queries" if answer else "prompt_queries")
        token = int(context.logits()[-1].argmax())
        if token in stop:
            break
        context.append(token)
        answer.append(token)
    return ReferenceAnswer(answer, decisions)


def loss(
    memory: ReferenceMemory | None,
    base: PreTrainedModel,
    prompt: list[int],
    target: list[int],
    cue: Sequence[int] = (),
) -> Tensor:
    """Mean token loss of one example, all of whose target is supervised. The trigger is not asked."""
    context = open_context(memory, base, prompt, cue)
    budget = 0
    if memory is not None:
        context.weave("prompt_queries")
        budget = memory.max_insertions
    for token in target[:-1]:
        context.append(token)
        if budget > 0 and ends_in_delimiter(context.tokens, memory.delimiters, memory.tokenizer):
            context.weave("inference_queries")
            budget -= 1
    logits = context.logits()[len(prompt) - 1 :]
    return F.cross_entropy(logits.float(), torch.tensor(target, device=base.device))


def ends_in_delimiter(tokens: list[int], delimiters: list[str], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether their text does. A point or comma behind a digit may be inside of a number and does not count."""
    if tokens[-1] in tokenizer.all_special_ids:
        return False
    text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    behind_digit = text[-2:-1].isdecimal()
    return any(text.endswith(d) and not (behind_digit and d in {".", ","}) for d in delimiters)


def ask_trigger(context: "CacheContext | EmbeddingContext") -> Decision:
    if context.memory.trigger == "always":
        return Decision(context.position, True, 1.0)
    logits = context.memory.linear("trigger_head", context.trigger_state())
    return Decision(context.position, bool(logits[1] > logits[0]), float(logits.softmax(dim=0)[1]))


def open_context(
    memory: ReferenceMemory | None, base: PreTrainedModel, prompt: list[int], cue: Sequence[int]
) -> "CacheContext | EmbeddingContext":
    form = CacheContext if memory is None or memory.form == "cache" else EmbeddingContext
    return form(memory, base, prompt, cue)


class CacheContext:
    """Form `cache`: the newest token is encoded last, by when it is known whether latents stand in front of it."""

    def __init__(
        self, memory: ReferenceMemory | None, base: PreTrainedModel, prompt: list[int], cue: Sequence[int]
    ) -> None:
        self.memory, self.base, self.cue = memory, base, list(cue)
        self.tokens = list(prompt)
        self.insertions: list[tuple[int, str]] = []
        """Tokens in front of each, and its queries."""

    @property
    def position(self) -> int:
        return len(self.tokens) - 1

    def append(self, token: int) -> None:
        self.tokens.append(token)

    def weave(self, queries: str) -> None:
        self.insertions.append((self.position, queries))

    def _woven(self, position: int, queries: str) -> Tensor:
        """What the weaver reads of its own at an insertion: at the prompt's end the last tokens again, then queries."""
        asked, again = self.memory.queries(queries), self.memory.reread_tokens
        if queries != "prompt_queries" or not again:
            return asked
        tokens = torch.tensor(self.tokens[:position][-again:], dtype=torch.long, device=self.base.device)
        return torch.cat([self.base.get_input_embeddings()(tokens).to(asked.dtype), asked])

    def logits(self) -> Tensor:
        """`(T, V)`: for each of the T tokens, of the one behind it."""
        _, states = self._encode(len(self.tokens))
        return torch.cat([logits for _, logits in states])

    def trigger_state(self) -> Tensor:
        """`(H,)`: what the trigger's head reads."""
        cache, states = self._encode(self.position)
        if self.memory.trigger == "lora":
            newest = ids(self.base, self.tokens[-1:])
            hidden, _ = run(self.memory.trigger_lora, input_ids=newest, past_key_values=cache, use_cache=True)
            return hidden[-1]
        if not states:
            return no_state(self.base)
        hidden, _ = states[-1]
        return hidden[-1]

    def _encode(self, end: int) -> tuple[DynamicCache, list[tuple[Tensor, Tensor]]]:
        """The first `end` tokens and the latents among them: one cache, and the reasoner's states between insertions.

        The reasoner's positions need no care: it counts them on from the length of the cache.
        """
        cache = DynamicCache()
        states, start = [], 0
        for position, queries in [*self.insertions, (end, None)]:
            if position > start:
                tokens = ids(self.base, self.tokens[start:position])
                states.append(run(self.base, input_ids=tokens, past_key_values=cache, use_cache=True))
            if queries is not None:
                self._weave_into(cache, self._woven(position, queries))
            start = position
        return cache, states

    def _weave_into(self, cache: DynamicCache, woven: Tensor) -> None:
        """The weaver reads the cue, then the cache, then what is its own; of that alone something stays in the cache.

        The base has read the cue by itself; the positions of what is woven are those behind the cache, as without it.
        """
        seen, count, start = DynamicCache(), len(woven), cache.get_seq_length()
        if self.cue:
            run(self.base, input_ids=ids(self.base, self.cue), past_key_values=seen, use_cache=True)
        for number, layer in enumerate(cache.layers):
            seen.update(layer.keys, layer.values, number)
        positions = torch.arange(start, start + count, device=self.base.device)[None]
        weaver = self.memory.weaver_lora
        run(weaver, inputs_embeds=woven[None], position_ids=positions, past_key_values=seen, use_cache=True)
        for number, layer in enumerate(seen.layers):
            cache.update(layer.keys[:, :, -count:], layer.values[:, :, -count:], number)


class EmbeddingContext:
    """Form `embedding`: reasoner, weaver and trigger each read a sequence of their own from its start."""

    def __init__(self, memory: ReferenceMemory, base: PreTrainedModel, prompt: list[int], cue: Sequence[int]) -> None:
        self.memory, self.base = memory, base
        self.cue = base.get_input_embeddings()(torch.tensor(cue, dtype=torch.long, device=base.device))
        self.tokens: list[int] = []
        self.embeddings = torch.empty(0, base.config.hidden_size, dtype=base.dtype, device=base.device)
        self.predicting: list[int] = []
        """For each token the row that predicts the one behind it: its own, or the last of the latents behind it."""
        for token in prompt:
            self.append(token)

    @property
    def position(self) -> int:
        return len(self.tokens)

    def append(self, token: int) -> None:
        self.tokens.append(token)
        self.predicting.append(len(self.embeddings))
        self.embeddings = torch.cat([self.embeddings, self.base.get_input_embeddings()(ids(self.base, [token]))[0]])

    def weave(self, queries: str) -> None:
        asked = self.memory.queries(queries)
        read = self.memory.linear("reasoner_to_weaver", torch.cat([self.cue, self.embeddings])).to(asked.dtype)
        hidden, _ = run(self.memory.weaver_lora, inputs_embeds=torch.cat([read, asked])[None], use_cache=False)
        latents = self.memory.linear("weaver_to_reasoner", hidden[-len(asked) :]).to(self.base.dtype)
        self.embeddings = torch.cat([self.embeddings, latents])
        self.predicting[-1] = len(self.embeddings) - 1

    def logits(self) -> Tensor:
        """`(T, V)`: for each of the T tokens, of the one behind it."""
        _, logits = run(self.base, inputs_embeds=self.embeddings[None], use_cache=False)
        return logits[self.predicting]

    def trigger_state(self) -> Tensor:
        """`(H,)`: what the trigger's head reads."""
        if self.memory.trigger == "lora":
            hidden, _ = run(self.memory.trigger_lora, input_ids=ids(self.base, self.tokens), use_cache=False)
            return hidden[-1]
        if len(self.tokens) == 1:
            return no_state(self.base)
        hidden, _ = run(self.base, inputs_embeds=self.embeddings[None], use_cache=False)
        return hidden[self.predicting[-2]]


def run(model: PreTrainedModel | PeftModel, **inputs: Any) -> tuple[Tensor, Tensor]:
    """One row through a model: its last hidden states `(T, H)`, after the final norm, and logits `(T, V)`."""
    output = model(**inputs, output_hidden_states=True)
    return output.hidden_states[-1][0], output.logits[0]


def ids(base: PreTrainedModel, tokens: list[int]) -> Tensor:
    return torch.tensor([tokens], device=base.device)


def no_state(base: PreTrainedModel) -> Tensor:
    """Stands for the state that predicted a prompt's first token."""
    return torch.zeros(base.config.hidden_size, device=base.device)
