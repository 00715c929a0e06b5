"""Who waits for versions that are being loaded, by the version's name. They hold no place and no cache meanwhile, and
at most half of the room that there is to wait in."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from api.inference.backlog import Backlog
from api.inference.local.rows import AnswerRow
from api.inference.local.tickets import Ticket
from api.inference.unavailable import QueueFull
from memgen.routing.loaded import Choice


@dataclass
class Wanting:
    """Requests and answers that wait for one version."""

    tickets: list[Ticket] = field(default_factory=list)
    """Requests whose own version it is."""
    rows: list[tuple[AnswerRow, Choice]] = field(default_factory=list)
    """Answers that a router chose it for, and that gave their places to others."""

    def all_tickets(self) -> list[Ticket]:
        return [*self.tickets, *(row.ticket for row, _ in self.rows)]


class AwaitedVersions:
    """Not thread-safe."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._wanting: dict[str, Wanting] = {}

    def __len__(self) -> int:
        """Versions that somebody waits for."""
        return len(self._wanting)

    def ask(self, name: str, ticket: Ticket) -> bool:
        """Let a ticket wait; False if it is refused, of which its reader hears."""
        if not self._enter(ticket):
            return False
        self._wanting.setdefault(name, Wanting()).tickets.append(ticket)
        return True

    def set_aside(self, name: str, row: AnswerRow, choice: Choice) -> None:
        """Let a row wait, or refuse it."""
        if self._enter(row.ticket):
            self._wanting.setdefault(name, Wanting()).rows.append((row, choice))

    def take(self, name: str) -> Wanting:
        """Remove and return who waits for a version."""
        wanting = self._wanting.pop(name, Wanting())
        for ticket in wanting.all_tickets():
            self._backlog.has_version(ticket.backlog_number)
        return wanting

    def tickets(self) -> Iterator[Ticket]:
        for wanting in self._wanting.values():
            yield from wanting.all_tickets()

    def names(self) -> set[str]:
        return set(self._wanting)

    def has_foreground(self) -> bool:
        """Whether anybody waits whose answer is not of the background."""
        return any(not ticket.background for ticket in self.tickets())

    def drop_gone(self) -> None:
        for name, wanting in list(self._wanting.items()):
            wanting.tickets = [ticket for ticket in wanting.tickets if not ticket.is_gone]
            wanting.rows = [(row, choice) for row, choice in wanting.rows if not row.ticket.is_gone]
            if not wanting.tickets and not wanting.rows:
                del self._wanting[name]

    def _enter(self, ticket: Ticket) -> bool:
        if ticket.background:
            return True
        try:
            self._backlog.wait_for_version(ticket.backlog_number, ticket.rough_tokens)
        except QueueFull as error:
            ticket.send(error)
            return False
        if ticket.abandoned:  # its reader may have left the backlog just before
            self._backlog.leave(ticket.backlog_number)
        return True
