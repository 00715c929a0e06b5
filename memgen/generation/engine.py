"""Generation with memory woven in: rows that are decoded together, each with its own memory version or none.

A prompt is encoded by the bare base up to its last token. At a decision point (the prompt's end, then sentence ends
while the budget lasts) the row's trigger decides, and on INVOKE its weaver puts K latents into the context. No token
is encoded twice in one stream, but those that a memory's `reread_tokens` ask for; and rows that do not weave do not
wait for latents of those that do.
"""

from collections.abc import Callable, Iterator, Sequence

from memgen.backbone.prompt_cache import PromptCache
from memgen.generation.decoding import Decoding
from memgen.generation.requests import Generation, GenerationRequest, check_fits
from memgen.memory.host import AdapterHost

_PROMPT_BYTES = 2**28
"""For prompts that several of a caller's requests have, or begin with."""


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
        prompts: prompts already read; None reads each distinct prompt of these once.
        on_text: called with a request's number and text as it becomes final.
        is_cancelled: called for each unfinished request before each step: some of its prompt's tokens, or one of its
            answer's.

    Raises:
        PromptTooLong: prompt, memory and answer of a request exceed the model's context.
    """
    decoding = Decoding(host, prompts=prompts, on_text=on_text)
    for request in requests:
        decoding.add(request)
    results: dict[int, Generation] = {}
    while not decoding.done:
        for number in decoding.unfinished() if is_cancelled else ():
            if is_cancelled and is_cancelled(number):
                decoding.cancel(number)
        decoding.step()
        results.update(_answers(decoding))
    return [results[number] for number in range(len(requests))]


def stream(
    host: AdapterHost, request: GenerationRequest, *, prompts: PromptCache | None = None
) -> Iterator[str | Generation]:
    """Pieces of text as they become final, then the whole `Generation`. Closing the iterator cancels.

    Raises:
        PromptTooLong: as `generate`, at the first piece.
    """
    pieces: list[str] = []
    decoding = Decoding(host, prompts=prompts, on_text=lambda _, text: pieces.append(text))
    decoding.add(request)
    try:
        while not decoding.done:
            decoding.step()
            yield from pieces
            pieces.clear()
        yield from (answer for _, answer in _answers(decoding))
    finally:
        for number in decoding.unfinished():
            decoding.cancel(number)


def generate_all(
    host: AdapterHost,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int = 16,
    prompts: PromptCache | None = None,
    on_done: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Answer any number of requests, `batch_size` at a time: one begins as another ends. Short prompts come first, and
    who shares passes with whom follows from the requests alone. Results in the order of `requests`.

    Args:
        prompts: as `generate`; None keeps some of the requests' own.
        on_done: called after each step in which answers ended, with how many there are.
    """
    known = prompts if prompts is not None else PromptCache(host.backbone.decoder, _PROMPT_BYTES)
    decoding = Decoding(host, prompts=known)
    order = sorted(range(len(requests)), key=lambda n: len(requests[n].prompt_ids))
    for request in requests:
        check_fits(host, request)
    results: dict[int, Generation] = {}
    joined = 0
    while len(results) < len(requests):
        while joined < len(order) and len(decoding.unfinished()) < batch_size:
            decoding.add(requests[order[joined]])
            joined += 1
        decoding.step()
        ended = _answers(decoding)
        results.update((order[number], answer) for number, answer in ended)
        if on_done and ended:
            on_done(len(results))
    return [results[n] for n in range(len(requests))]


def _answers(decoding: Decoding) -> list[tuple[int, Generation]]:
    """What has ended. Raises the error that a row ended in."""
    answers = []
    for number, answer in decoding.ended():
        if isinstance(answer, Exception):
            raise answer
        answers.append((number, answer))
    return answers
