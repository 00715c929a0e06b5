"""Generation with memory woven in: one static batch, each row with its own memory version or none.

A prompt is encoded by the bare base up to its last token. At a decision point (the prompt's end, then sentence ends
while the budget lasts) the row's trigger decides, and on INVOKE its weaver puts K latents into the context. No token
is encoded twice in one stream, but those that a memory's `reread_tokens` ask for; and rows that do not weave do not
wait for latents of those that do.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from memgen.backbone.prompt_cache import PromptCache
from memgen.generation.decoding import Decoding
from memgen.generation.requests import Generation, GenerationRequest
from memgen.memory.host import AdapterHost


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
        is_cancelled: called for each unfinished request before each token.

    Raises:
        PromptTooLong: prompt, memory and answer of a request exceed the model's context.
    """
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
