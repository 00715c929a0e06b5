"""How much may wait to be answered, by requests and by tokens; what comes beyond is refused before any work on it."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from api.inference.requests import ChatRequest
from api.inference.unavailable import QueueFull

_CHARACTERS_PER_TOKEN = 4
_LONGEST_WAIT_SECONDS = 600
_WEIGHT = 0.1
"""What one step counts for in the measured speed: some tens of steps matter."""


class Backlog:
    """What waits in one process, and how fast it is answered. Used by all threads."""

    def __init__(self, most_requests: int, most_tokens: int) -> None:
        self._most_requests, self._most_tokens = most_requests, most_tokens
        self._lock = threading.Lock()
        self._entries: dict[int, int] = {}
        self._loading: set[int] = set()
        """Entries that wait for a version that is being loaded."""
        self._entered = 0
        self._tokens = 0
        self._speed = 0.0

    @property
    def requests(self) -> int:
        return len(self._entries)

    @property
    def tokens(self) -> int:
        return self._tokens

    def enter(self, tokens: int) -> int:
        """Wait, with so many tokens to read and to write; the number to leave by. An empty backlog takes anything.

        Raises:
            QueueFull: too much waits already.
        """
        with self._lock:
            full = len(self._entries) >= self._most_requests
            if self._entries and (full or self._tokens + tokens > self._most_tokens):
                raise QueueFull(
                    f"{_wait(len(self._entries))} to be answered, of {self._tokens} tokens together; this "
                    f"process lets {self._most_requests} requests and {self._most_tokens} tokens wait "
                    "(MEMGEN_QUEUE_REQUESTS, MEMGEN_QUEUE_TOKENS). Send it again after Retry-After.",
                    self._retry_seconds(),
                )
            self._entered += 1
            self._entries[self._entered] = tokens
            self._tokens += tokens
            return self._entered

    @contextmanager
    def waiting(self, tokens: int) -> Iterator[None]:
        """Wait for as long as the block lasts. Raises as `enter`."""
        number = self.enter(tokens)
        try:
            yield
        finally:
            self.leave(number)

    def leave(self, number: int) -> None:
        """Wait no more. It may be called again."""
        with self._lock:
            self._loading.discard(number)
            self._tokens -= self._entries.pop(number, 0)

    def wait_for_version(self, number: int, tokens: int) -> None:
        """Wait for a version that is being loaded; one that had left waits again, if it is to.

        Raises:
            QueueFull: half of what may wait does so for versions; the other half is for those that need none.
        """
        with self._lock:
            loading = [each for each in self._loading if each != number]
            full = len(loading) >= max(1, self._most_requests // 2)
            waiting_tokens = sum(self._entries[each] for each in loading)
            if loading and (full or waiting_tokens + tokens > self._most_tokens / 2):
                raise QueueFull(
                    f"{_wait(len(loading))} for versions that are being loaded, of {waiting_tokens} tokens "
                    f"together; they may be half of the {self._most_requests} requests and {self._most_tokens} tokens "
                    "that may wait (MEMGEN_QUEUE_REQUESTS, MEMGEN_QUEUE_TOKENS). Send it again after Retry-After.",
                    self._retry_seconds(),
                )
            self._tokens += tokens - self._entries.get(number, 0)
            self._entries[number] = tokens
            self._loading.add(number)

    def has_version(self, number: int) -> None:
        """Wait like all others; the version is there."""
        with self._lock:
            self._loading.discard(number)

    def note(self, tokens: int, seconds: float) -> None:
        """A step read and wrote so many tokens."""
        if seconds > 0:
            speed = tokens / seconds
            self._speed = speed if self._speed == 0 else (1 - _WEIGHT) * self._speed + _WEIGHT * speed

    def _retry_seconds(self) -> int:
        """When half of what waits will have been answered, by the speed of late."""
        if self._speed == 0:
            return 1
        return max(1, min(_LONGEST_WAIT_SECONDS, math.ceil(self._tokens / 2 / self._speed)))


def rough_tokens(request: ChatRequest, most: int) -> int:
    """About how many tokens a request is to read and to write, without reading it; a prompt counts for at most
    `most`."""
    return rough_prompt_tokens(request, most) + sum(sampling.max_new_tokens for sampling in request.samplings)


def rough_prompt_tokens(request: ChatRequest, most: int) -> int:
    """The part of `rough_tokens` that is read."""
    return min(most, _rough_prompt(request))


def _rough_prompt(request: ChatRequest) -> int:
    if isinstance(request.raw_prompt, tuple):
        return len(request.raw_prompt)
    if request.raw_prompt is not None:
        return len(request.raw_prompt) // _CHARACTERS_PER_TOKEN
    characters = sum(_characters(message) for message in request.messages)
    if request.tools:
        characters += sum(len(str(tool)) for tool in request.tools)
    return characters // _CHARACTERS_PER_TOKEN + len(request.messages)


def _characters(message: dict[str, Any]) -> int:
    """About how long a message is shown: what it says, and the calls it makes."""
    content, calls = message.get("content"), message.get("tool_calls")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    for call in calls if isinstance(calls, list) else ():
        called = call.get("function") or call.get("custom") if isinstance(call, dict) else None
        if isinstance(called, dict):
            texts += [called.get(name) for name in ("name", "arguments", "input")]
    return sum(len(text) if isinstance(text, str) else len(str(text)) for text in texts if text is not None)


def _wait(requests: int) -> str:
    return "1 request waits" if requests == 1 else f"{requests} requests wait"
