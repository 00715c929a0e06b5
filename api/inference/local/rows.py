"""Rows of a batch: a request's prompt with the memory that answers it, and what becomes of it when its answer ends."""

from dataclasses import dataclass, replace

from api.inference.local.serving_base import as_served
from api.inference.local.tickets import Ticket
from api.inference.prompts import Prompt
from api.inference.requests import Finished, MemorySource
from api.inference.token_texts import token_texts
from api.inference.unavailable import STOPPING, InferenceUnavailable, Preempted
from memgen.backbone.prompt_cache import PromptCache
from memgen.generation.requests import Generation, GenerationRequest, check_fits
from memgen.memory.host import AdapterHost
from memgen.routing.loaded import Choice, LoadedMemories


@dataclass(frozen=True)
class AnswerRow:
    """One answer of a batch that is being decoded."""

    ticket: Ticket
    choice: int
    request: GenerationRequest
    task: str | None
    """Task that a router found the prompt to belong to."""
    cue: tuple[str, ...]
    """Ids of the past trajectories that the weaver is shown."""
    opened: bool
    """The prompt opens a thought."""


def prepare_rows(memories: LoadedMemories, prompts: PromptCache, ticket: Ticket, prompt: Prompt) -> list[AnswerRow]:
    """A row for each of the ticket's answers.

    Raises:
        MemgenError, RegistryError: the version can't answer it.
    """
    request = ticket.request
    bare = GenerationRequest(prompt.token_ids, request.samplings[0])
    check_fits(memories.host, bare)
    chosen = _choose(memories, prompts, request.memory, bare)
    [cue] = memories.host.cues(chosen.memory, [request.messages])
    cued = replace(bare, memory=chosen.memory, cue_ids=cue.token_ids)
    prepared = [replace(cued, sampling=sampling) for sampling in request.samplings]
    for each in prepared:
        check_fits(memories.host, each)
    opened = prompt.opens_reasoning
    return [AnswerRow(ticket, choice, each, chosen.task, cue.entry_ids, opened) for choice, each in enumerate(prepared)]


def _choose(
    memories: LoadedMemories, prompts: PromptCache, source: MemorySource | None, request: GenerationRequest
) -> Choice:
    """The memory that answers. Where a router decides, it reads the prompt, which is then kept for the answer."""
    if source is None:
        return Choice(None)
    if source.check_base is not None:
        source.check_base(as_served(memories.host.backbone))
    name = memories.ensure(source.name, source.manifest_sha256, source.fetch)
    if source.fetch_other is None:
        return Choice(name)
    return memories.choose(name, lambda: prompts.read([request.prompt_ids[:-1]])[0].state, source.fetch_other)


def ending(host: AdapterHost, row: AnswerRow, generation: Generation) -> Finished | Exception:
    if generation.finish_reason == "cancelled":  # the ticket of an abandoned one drops what is sent
        return (
            Preempted("another request waits for an answer")
            if row.ticket.background
            else InferenceUnavailable(STOPPING)
        )
    wants_logprobs = row.request.sampling.logprobs
    tokens = token_texts(host.backbone.tokenizer, generation.token_ids) if wants_logprobs else ()
    return Finished(row.choice, generation, row.task, row.cue, tokens, row.opened)
