"""A ticket of the engine `vllm`."""

from api.inference.requests import ChatRequest
from api.inference.ticket import EngineTicket


class VllmTicket(EngineTicket):
    def __init__(self, request: ChatRequest, *, wants_pieces: bool, background: bool) -> None:
        super().__init__(request, wants_pieces=wants_pieces, background=background)
        self.is_being_answered = False
        """Whether it was sent to a server."""
