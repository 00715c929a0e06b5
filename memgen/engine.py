"""Generation with memory woven in: one static batch, each row with its own memory version or none.

A prompt is encoded by the bare base up to its last token. At a decision point (the prompt's end, then sentence ends
while the budget lasts) the row's trigger decides, and on INVOKE its weaver puts K latents into the context. No token
is encoded twice in one stream, but those that a memory's `reread_tokens` ask for; and rows that do not weave do not
wait for latents of those that do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memgen.errors import PromptTooLong
from memgen.host import AdapterHost
from memgen.prompts import PromptCache
from memgen.sampling import Sampling


@dataclass(frozen=True)
class GenerationRequest:
    prompt_ids: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    memory: str | None = None
    """Name of a memory loaded in the host; None is the bare base."""
    return_latents: bool = False
    """Give the insertions' latents with the answer."""
    cue_ids: tuple[int, ...] = ()
    """Retrieved text that the weaver reads at every insertion and the reasoner never does; unread if nothing weaves."""


@dataclass(frozen=True)
class Decision:
    """What the trigger said at one decision point."""

    position: int
    """How many tokens, of prompt and answer, stand in front of this point."""
    probability: float
    """Of INVOKE."""
    invoked: bool
    latents: int
    """Latent tokens inserted; 0 if it skipped."""
    reread: int = 0
    """Tokens of the prompt that the weaver read again; what it made of them stands in front of the latents."""
    states: Tensor | None = field(default=None, compare=False, repr=False)
    """`(latents, H)` on request: last hidden states (form `cache`) or input embeddings (form `embedding`)."""


@dataclass(frozen=True)
class Timings:
    """Seconds of the batch that the answer was part of; all its rows report the same."""

    prompt: float = 0.0
    trigger: float = 0.0
    weave: float = 0.0
    """Of steps in which any row wove; the other rows' tokens are read in the same passes."""
    decode: float = 0.0
    """Of all other steps."""
    first_token: float = 0.0
    """From the call to the first token of the batch."""
    total: float = 0.0
    """From the call to this row's end."""


@dataclass(frozen=True)
class Generation:
    token_ids: tuple[int, ...]
    """Without the token that ended the answer."""
    text: str
    finish_reason: str
    """`stop` (end of turn or stop string), `length` or `cancelled`."""
    decisions: tuple[Decision, ...]
    prompt_tokens: int
    timings: Timings
    logprobs: tuple[float, ...] | None = None
    """On request, of each token under the model's raw distribution; like `token_ids`, with no end token."""
    end_token: int | None = None
    """The token that ended the answer; None if none did."""
    end_logprob: float | None = None
    """On request, of `end_token`."""

    @property
    def insertions(self) -> tuple[Decision, ...]:
        """The decisions to INVOKE."""
        return tuple(decision for decision in self.decisions if decision.invoked)


def generate(
    host: AdapterHost,
    requests: Sequence[GenerationRequest],
    *,
    prompts: PromptCache | None = None,
    on_text: Callable[[int, str], None] | None = None,
    is_cancelled: Callable[[int], bool] | None = None,
) -> list[Generation]:
    """Answer a batch of requests.

    Args:
        prompts: prompts already read; None reads each distinct prompt of the batch once.
        on_text: called with a request's number and text as it becomes final.
        is_cancelled: asked for each unfinished request before each token.

    Raises:
        PromptTooLong: prompt, memory and answer of a request exceed the model's context.
    """
    from memgen.decoding import Decoding

    with torch.inference_mode():
        decoding = Decoding(host, requests, prompts=prompts, on_text=on_text)
        while not decoding.done:
            for number in decoding.unfinished() if is_cancelled else ():
                if is_cancelled and is_cancelled(number):
                    decoding.cancel(number)
            decoding.step()
        return decoding.results()


def stream(
    host: AdapterHost, request: GenerationRequest, *, prompts: PromptCache | None = None
) -> Iterator[str | Generation]:
    """Pieces of text as they become final, then the whole `Generation`. Closing the iterator cancels.

    Raises:
        PromptTooLong: as `generate`, at the first piece.
    """
    from memgen.decoding import Decoding

    pieces: list[str] = []
    with torch.inference_mode():
        decoding = Decoding(host, [request], prompts=prompts, on_text=lambda _, text: pieces.append(text))
    while not decoding.done:
        # Not around the loop: a generator that yields inside would leave the caller's code in inference mode.
        with torch.inference_mode():
            decoding.step()
        yield from pieces
        pieces.clear()
    yield decoding.results()[0]


def generate_all(
    host: AdapterHost,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int = 16,
    prompts: PromptCache | None = None,
    on_done: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Answer any number of requests in batches of similar length; results in the order of `requests`."""
    order = sorted(range(len(requests)), key=lambda n: len(requests[n].prompt_ids))
    results: dict[int, Generation] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        answers = generate(host, [requests[n] for n in batch], prompts=prompts)
        results.update(zip(batch, answers, strict=True))
        if on_done:
            on_done(len(results))
    return [results[n] for n in range(len(requests))]


def check_fits(host: AdapterHost, request: GenerationRequest) -> None:
    """Raise PromptTooLong unless prompt, all that may be woven, and answer fit the model's context.

    A cue counts where it stands: in the weaver's stream of form `embedding`, by itself for form `cache`.
    """
    latents = reread = 0
    if request.memory is not None:
        config = host.memories[request.memory].config
        latents, reread = config.most_latents, len(config.tokens_to_reread(request.prompt_ids))
    needed = len(request.prompt_ids) + reread + latents + request.sampling.max_new_tokens
    if needed > host.backbone.max_tokens:
        raise PromptTooLong(
            f"the prompt has {len(request.prompt_ids)} tokens; with {f'{reread} read again, ' if reread else ''}"
            f"{latents} latents and "
            f"{request.sampling.max_new_tokens} new tokens that is {needed}, more than the model's "
            f"{host.backbone.max_tokens}. Shorten the messages or lower max_tokens."
        )
    if request.memory is not None and request.cue_ids:
        behind = needed if config.form == "embedding" else 0
        longest = host.weaver_base(config).max_tokens
        if len(request.cue_ids) + behind > longest:
            raise PromptTooLong(
                f"the cue has {len(request.cue_ids)} tokens, and {behind} may follow it in its stream; the weaver's "
                f"model takes {longest}. Give the cue a smaller budget."
            )
