"""What the service asks of an engine, whichever it is: `local` in this process, or `vllm`, a server of its own.

An engine answers prompts with a version's memory woven in. It knows no alias, no route and no caller: a request names
the version's artifact by its hash. Which engine it is can't be told from its answers.
"""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from api.inference.requests import ChatRequest, Finished, Piece
from registry.binding import ServedBase


class InferenceEngine(Protocol):
    @property
    def base(self) -> ServedBase | None:
        """The base that answers, once it is known."""
        ...

    @property
    def description(self) -> dict[str, Any] | None:
        """The base as `memgen.backbone.description` describes it, once it is known."""
        ...

    def start(self) -> None:
        """Begin to get ready; returns at once. Requests may be sent at once and wait for it."""
        ...

    def stop(self) -> None:
        """End what is being answered, refuse what waits and what comes."""
        ...

    def check_ready(self) -> None:
        """Raises InferenceUnavailable unless a request would be answered now."""
        ...

    async def answer(self, request: ChatRequest, *, background: bool = False) -> list[Finished]:
        """All answers, in the order of `samplings`. Cancelling the task ends the generation.

        Args:
            background: answer only while no other request waits; it is given up when one comes.

        Raises:
            Preempted: another request came, and this one was in the background.
            InferenceUnavailable: no model, or no answer in time.
            MemgenError, RegistryError: the request or its version can't be answered.
        """
        ...

    async def count_tokens(self, request: ChatRequest) -> int:
        """Tokens of the request's prompt, as `prompt_tokens` counts them. Answers nothing, and needs no samplings.

        Raises:
            QueueFull: too much waits already.
            InferenceUnavailable, MemgenError: as `answer`.
        """
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Finished, None]:
        """Pieces of text, and each answer when it is whole. Closing the generator ends the generation.

        Raises:
            InferenceUnavailable, MemgenError, RegistryError: as `answer`, at any event.
        """
        ...
