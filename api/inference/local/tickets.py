"""A ticket of the engine `local`: with its deadline, and what the model's thread needs of the request."""

import time

from api.inference.prompts import Prompt
from api.inference.requests import ChatRequest
from api.inference.ticket import EngineTicket
from memgen.experience.cue import Cue


class Ticket(EngineTicket):
    def __init__(
        self, request: ChatRequest, *, wants_pieces: bool, background: bool = False, seconds: float = float("inf")
    ) -> None:
        """To be called in the reader's event loop. `seconds` from now the reader waits no more."""
        super().__init__(request, wants_pieces=wants_pieces, background=background)
        self.order = 0
        """Smaller came earlier."""
        self.prompt: Prompt | None = None
        """Set before the model's thread gets the ticket."""
        self.cues: dict[str | None, Cue] = {}
        """What each memory's weaver is shown beside the conversation."""
        self.rough_tokens = 0
        """What it counts for in the backlog."""
        self._deadline = time.monotonic() + seconds

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for its answer any more."""
        return self.abandoned or time.monotonic() >= self._deadline

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()
