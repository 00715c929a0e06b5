"""What the model's thread does: steps, and between two of them whatever comes and goes.

An answer waits (its version may be loading meanwhile), is let in when the cache has room for it, is decoded beside the
others, and leaves. Nobody waits for another's prompt longer than for a chunk of it in each step, nor for a version
that is being loaded. Background answers run while nothing else does.
"""

import time
from bisect import insort
from functools import partial
from itertools import chain

import structlog
from torch import Tensor

from api.inference.backlog import Backlog
from api.inference.local.awaited import AwaitedVersions
from api.inference.local.figures import EngineFigures
from api.inference.local.inbox import Inbox
from api.inference.local.loading import Loaded, VersionLoader
from api.inference.local.rows import AnswerRow, check_need, make_rows, outcome
from api.inference.local.serving_base import as_served
from api.inference.local.tickets import Ticket
from api.inference.local.waiting import WaitingLine
from api.inference.requests import Piece
from api.inference.unavailable import NotBegunInTime, Preempted
from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import MemgenError
from memgen.generation.decoding import Decoding
from memgen.routing.loaded import Choice, LoadedMemories
from registry.errors import RegistryError
from registry.settings import Settings

log = structlog.get_logger()

Arrival = Ticket | Loaded


class ModelLoop:
    """Owned by one thread; others put into its inbox, and read its figures."""

    def __init__(
        self,
        memories: LoadedMemories,
        prompts: PromptCache,
        settings: Settings,
        inbox: Inbox[Arrival],
        backlog: Backlog,
    ) -> None:
        self._memories, self._prompts, self._settings = memories, prompts, settings
        self._inbox, self._backlog = inbox, backlog
        self._loader = VersionLoader(memories, inbox.put)
        self._budget = settings.cache_bytes
        self._line: WaitingLine[AnswerRow] = WaitingLine()
        self._background: list[list[AnswerRow]] = []
        self._running: dict[int, AnswerRow] = {}
        self._awaited = AwaitedVersions(backlog)
        self._routed: dict[int, Choice] = {}
        """Rows whose memory is chosen, and is being loaded, by number."""
        self._generated = self._read = 0
        """Tokens of decodings that failed."""
        self._decoding = self._new_decoding()
        self.figures = EngineFigures(cache_budget_bytes=self._budget)

    def run(self) -> None:
        """Answer until the inbox is closed."""
        idle = True
        while not self._inbox.closed:
            for arrival in self._inbox.take(wait=idle):
                self._receive(arrival)
            idle = not self._turn()

    def refuse(self, error: Exception) -> None:
        """Tell everybody who is left that there will be no answer."""
        self._loader.stop()
        for arrival in self._inbox.take(wait=False):
            if isinstance(arrival, Ticket):
                arrival.send(error)
        for ticket in self._tickets():
            ticket.send(error)

    def _turn(self) -> bool:
        """All that is due between two steps, and a step. False if there was nothing to do."""
        self._drop_gone()
        self._give_way()
        let_in = self._admit()
        chosen = self._choose_memories()
        stepped = self._step()
        self._memories.trim(keep=self._names_in_use())
        self._note_figures()
        return let_in or chosen or stepped

    def _receive(self, arrival: Arrival) -> None:
        if isinstance(arrival, Loaded):
            self._take_loaded(arrival)
            return
        source = arrival.request.memory
        try:
            if source is not None and source.check_base is not None:
                source.check_base(as_served(self._memories.host.backbone))
            if source is None or self._memories.has(source.name):
                self._line_up(arrival)
            elif self._awaited.ask(source.name, arrival):
                self._loader.want(source.name, source.manifest_sha256, source.fetch)
        except Exception as error:
            self._fail(arrival, error)

    def _take_loaded(self, loaded: Loaded) -> None:
        self._loader.arrived(loaded.name)
        wanting = self._awaited.take(loaded.name)
        if isinstance(loaded.outcome, Exception):
            for ticket in wanting.all_tickets():
                self._fail(ticket, loaded.outcome)
            for number in [n for n, choice in self._routed.items() if choice.memory == loaded.name]:
                self._cut(number, loaded.outcome)
            return
        self._memories.take(loaded.name, loaded.outcome)
        for ticket in wanting.tickets:
            self._line_up(ticket)
        for row, choice in wanting.rows:
            try:
                row.decide(self._memories.host, choice)
                check_need(row, self._budget)
                self._line.join(row, order=row.ticket.order, need=row.need)
            except Exception as error:
                self._fail(row.ticket, error)

    def _line_up(self, ticket: Ticket) -> None:
        """Let a ticket's answers wait for room; its version is loaded."""
        source = ticket.request.memory
        if ticket.is_gone or ticket.prompt is None:
            return
        name = source.name if source is not None else None
        isolated = self._memories.isolated(name) if name is not None else None
        undecided = isolated is not None and source is not None and source.fetch_other is not None
        host = self._memories.host
        try:
            rows = make_rows(host, ticket, ticket.prompt, name, self._budget, undecided=undecided)
        except Exception as error:
            self._fail(ticket, error)
            return
        if ticket.background:
            insort(self._background, rows, key=lambda rows: rows[0].ticket.order)
            return
        for row in rows:
            self._line.join(row, order=ticket.order, need=row.need)

    def _drop_gone(self) -> None:
        """Nothing is computed for one whose reader has gone, or whose time has passed."""
        for row in self._line.drop(lambda row: row.ticket.is_gone):
            self._backlog.leave(row.ticket.backlog_number)
            row.ticket.send(NotBegunInTime("its time passed while it waited"))
        self._awaited.drop_gone()
        self._background = [rows for rows in self._background if not rows[0].ticket.is_gone]
        for number in [n for n, row in self._running.items() if row.ticket.is_gone]:
            self._cut(number, None)

    def _give_way(self) -> None:
        """End the background's answers where anybody else waits."""
        if len(self._line) or self._awaited.has_foreground():
            for number in [n for n, row in self._running.items() if row.ticket.background]:
                self._cut(number, Preempted("another request waits for an answer"))

    def _admit(self) -> bool:
        let_in = self._let_in()
        if len(self._line) and self._routed:
            self._set_aside()
            let_in |= self._let_in()
        return let_in

    def _set_aside(self) -> None:
        """Let others have the places of answers whose memory is being loaded."""
        for number, choice in self._routed.items():
            if choice.memory is not None:
                self._awaited.set_aside(choice.memory, self._running.pop(number), choice)
                self._decoding.cancel(number)
        self._routed.clear()

    def _let_in(self) -> bool:
        free = self._budget - sum(row.need for row in self._running.values())
        places = self._settings.inference_batch - len(self._running)
        rows = [waiter.item for waiter in self._line.admit(free, places)]
        others = rows or self._running or len(self._line) or self._awaited.has_foreground()
        if self._background and not others:
            rows = self._background.pop(0)
        for row in rows:
            try:
                number = self._decoding.add(row.request, undecided=row.undecided)
            except Exception as error:
                self._fail(row.ticket, error)
                continue
            self._running[number] = row
            row.ticket.begun = True
            self._backlog.leave(row.ticket.backlog_number)
        return bool(rows)

    def _choose_memories(self) -> bool:
        """Let rows go on that wait for a router's choice, once the chosen memory is there. Whether anything changed."""
        went_on = False
        for number, state in self._decoding.parked():
            try:
                went_on |= self._choose_memory(number, self._running[number], state)
            except Exception as error:
                self._cut(number, error)
                went_on = True
        return went_on

    def _choose_memory(self, number: int, row: AnswerRow, state: Tensor) -> bool:
        source = row.ticket.request.memory
        if source is None or source.fetch_other is None:
            raise RuntimeError("only a version with a memory for each task is routed")
        choice = self._routed.get(number) or self._memories.route(source.name, state)
        if choice.memory is not None and not self._memories.has(choice.memory):
            if number in self._routed:
                return False
            self._routed[number] = choice
            self._loader.want(choice.memory, choice.memory, partial(source.fetch_other, choice.memory))
            return True
        self._routed.pop(number, None)
        before = row.need
        row.decide(self._memories.host, choice)
        check_need(row, self._budget)
        free = self._budget - sum(other.need for other in self._running.values())
        if row.need > before and free < 0:
            # It waits for room again, in its old place; what was read of its prompt is kept as prompts are.
            del self._running[number]
            self._decoding.cancel(number)
            self._line.join(row, order=row.ticket.order, need=row.need)
        else:
            self._decoding.choose(number, row.request.memory, row.request.cue_ids)
        return True

    def _step(self) -> bool:
        began, before = time.perf_counter(), self._decoding.generated_tokens + self._decoding.read_tokens
        try:
            stepped = self._decoding.step()
            ended = self._decoding.ended()
        except Exception as error:  # the device's, or a bug: what the rows held can't be relied on
            log.exception("generation failed")
            # What the frames hold of the device would stay until all readers have heard of it.
            error.__traceback__ = None
            for broken in self._running.values():
                broken.ticket.send(error)
            self._running.clear()
            self._routed.clear()
            self._generated += self._decoding.generated_tokens
            self._read += self._decoding.read_tokens
            self._decoding = self._new_decoding()
            return True
        if stepped:  # else there was nothing to do, which says nothing of the speed
            tokens = self._decoding.generated_tokens + self._decoding.read_tokens - before
            self._backlog.note(tokens, time.perf_counter() - began)
        for number, answer in ended:
            row = self._running.pop(number, None)
            if row is None:
                continue
            row.ticket.send(outcome(self._memories.host, row, answer))
        return stepped

    def _cut(self, number: int, error: Exception | None) -> None:
        """End an answer that runs."""
        row = self._running.pop(number)
        self._routed.pop(number, None)
        self._decoding.cancel(number)
        if error is not None:
            row.ticket.send(error)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if not isinstance(error, MemgenError | RegistryError):
            log.error("a request could not be prepared", exc_info=error)
        ticket.send(error)

    def _on_text(self, number: int, text: str) -> None:
        row = self._running.get(number)  # None: it is being cut off
        if row is not None and row.ticket.wants_pieces:
            row.ticket.send(Piece(row.choice, text, row.opened))

    def _new_decoding(self) -> Decoding:
        return Decoding(
            self._memories.host,
            prompts=self._prompts,
            on_text=self._on_text,
            chunk_tokens=self._settings.prompt_chunk_tokens,
            most_bytes=self._budget,
        )

    def _rows(self) -> list[AnswerRow]:
        return [*self._running.values(), *self._line.items(), *chain.from_iterable(self._background)]

    def _tickets(self) -> list[Ticket]:
        tickets = (*self._awaited.tickets(), *(row.ticket for row in self._rows()))
        return list({id(ticket): ticket for ticket in tickets}.values())

    def _names_in_use(self) -> frozenset[str]:
        """Memories that may not be dropped."""
        sources = [ticket.request.memory for ticket in self._tickets()]
        chosen = [*(choice.memory for choice in self._routed.values()), *(row.request.memory for row in self._rows())]
        return frozenset([*(s.name for s in sources if s is not None), *(name for name in chosen if name is not None)])

    def _note_figures(self) -> None:
        self.figures = EngineFigures(
            running=len(self._running),
            waiting=self._backlog.requests,
            waiting_tokens=self._backlog.tokens,
            loading=len(self._awaited.names() | {choice.memory for choice in self._routed.values()}),
            cache_bytes=self._decoding.cache_bytes,
            cache_need_bytes=sum(row.need for row in self._running.values()),
            cache_budget_bytes=self._budget,
            generated_tokens=self._generated + self._decoding.generated_tokens,
            read_tokens=self._read + self._decoding.read_tokens,
        )
