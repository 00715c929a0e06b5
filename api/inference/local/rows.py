"""Rows: one answer of a request, with the memory that gives it, from its waiting to its end."""

from dataclasses import dataclass, replace

import structlog

from api.inference.local.tickets import Ticket
from api.inference.prompts import Prompt
from api.inference.requests import Finished
from api.inference.token_texts import reported_texts
from memgen.errors import PromptTooLong
from memgen.generation.cache_need import cache_need
from memgen.generation.requests import Generation, GenerationRequest, check_fits
from memgen.memory.host import AdapterHost
from memgen.routing.loaded import Choice

log = structlog.get_logger()


@dataclass
class AnswerRow:
    ticket: Ticket
    choice: int
    """Which of the request's answers."""
    request: GenerationRequest
    need: int
    """Bytes of the caches, in the worst case."""
    opened: bool
    """The prompt opens a thought."""
    undecided: bool = False
    """A router is still to choose the memory, by what the base makes of the prompt."""
    task: str | None = None
    """Task that a router found the prompt to belong to."""
    cue: tuple[str, ...] = ()
    """Ids of the past trajectories that the weaver is shown."""

    def decide(self, host: AdapterHost, chosen: Choice) -> None:
        """Let the chosen memory answer.

        Raises:
            PromptTooLong: with it the request exceeds the model's context.
        """
        cue = self.ticket.cues.get(chosen.memory)
        if cue is None:
            [cue] = host.cues(chosen.memory, [self.ticket.request.messages])
            self.ticket.cues[chosen.memory] = cue
        request = replace(self.request, memory=chosen.memory, cue_ids=cue.token_ids)
        check_fits(host, request)
        self.request, self.need = request, cache_need(host, request)
        self.undecided, self.task, self.cue = False, chosen.task, cue.entry_ids


def make_rows(
    host: AdapterHost, ticket: Ticket, prompt: Prompt, memory: str | None, most_bytes: int, *, undecided: bool
) -> list[AnswerRow]:
    """A row for each of the ticket's answers.

    Args:
        memory: the version's own, which is in the host; None is the bare base.
        undecided: a router may choose another.

    Raises:
        PromptTooLong: an answer would not fit the model's context, or needs more cache than there is.
    """
    rows: list[AnswerRow] = []
    for choice, sampling in enumerate(ticket.request.samplings):
        request = GenerationRequest(prompt.token_ids, sampling, None if undecided else memory)
        check_fits(host, request)
        need = cache_need(host, replace(request, memory=memory))
        row = AnswerRow(ticket, choice, request, need, prompt.opens_reasoning, undecided)
        if not undecided:
            row.decide(host, Choice(memory))
        check_need(row, most_bytes)
        rows.append(row)
    return rows


def check_need(row: AnswerRow, most_bytes: int) -> None:
    """Raises PromptTooLong if the row can never find room."""
    if row.need > most_bytes:
        raise PromptTooLong(
            f"prompt ({len(row.request.prompt_ids)} tokens) and answer (up to {row.request.sampling.max_new_tokens}) "
            f"may need {row.need} bytes of the cache; this process has {most_bytes} (MEMGEN_CACHE_BYTES). Shorten the "
            "messages or lower max_tokens."
        )


def outcome(host: AdapterHost, row: AnswerRow, answer: Generation | Exception) -> Finished | Exception:
    """What the reader of a row's answer gets, of what became of it."""
    try:
        if not isinstance(answer, Exception):
            return _finished(host, row, answer)
    except Exception as error:
        answer = error
    log.error("an answer failed", exc_info=answer)
    return answer


def _finished(host: AdapterHost, row: AnswerRow, generation: Generation) -> Finished:
    read = row.request.prompt_ids if row.request.sampling.record else ()
    if not row.request.sampling.logprobs:
        return Finished(row.choice, generation, row.task, row.cue, opened=row.opened, prompt_ids=read)
    tokens, alternatives = reported_texts(host.backbone.tokenizer, generation)
    return Finished(row.choice, generation, row.task, row.cue, tokens, row.opened, alternatives, read)
