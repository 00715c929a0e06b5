"""The engine's steps, watched: counted, held, slowed, broken or told what to say."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memgen.generation.decoding import Decoding
from memgen.generation.draws import Chosen


class Watch:
    def __init__(self) -> None:
        self.joined = 0
        """Answers that were begun."""
        self.rows: list[int] = []
        """Answers that got a token in each step."""
        self.steps = 0
        """Those in which an answer gets a token."""
        self.step_seconds = 0.0
        self.fail_at: int | None = None
        """Number of the step, of all, that raises."""
        self.say: str | None = None
        """What every answer is, instead of what the model says."""
        self.say_to: Callable[[str], str] | None = None
        """What the answer to a prompt is, instead."""
        self._held_from: int | None = None
        self._go = threading.Event()
        self.is_held = threading.Event()
        """Set while the engine waits for `go`."""

    def hold(self, *, after: int) -> None:
        """Let `after` more steps give their tokens, then none until `go`."""
        self._go.clear()
        self._held_from = self.steps + after

    def go(self) -> None:
        self._held_from = None
        self._go.set()

    def step(self, rows: int) -> None:
        if self._held_from is not None and self.steps >= self._held_from:
            self.is_held.set()
            assert self._go.wait(timeout=60), "nobody let the engine go on"
            self.is_held.clear()
        time.sleep(self.step_seconds)
        self.steps += 1
        self.rows.append(rows)
        if self.steps == self.fail_at:
            raise RuntimeError("the device is gone")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Of all answers that services in this process decode."""
    watching = Watch()

    add, choose_tokens, take = Decoding.add, Decoding._choose_tokens, Decoding._take

    def watched_add(self: Decoding, request: Any, **options: Any) -> int:
        if _is_of_a_service(self):
            watching.joined += 1
        return add(self, request, **options)

    def watched_choose_tokens(self: Decoding, rows: Any) -> None:
        if _is_of_a_service(self):
            watching.step(len(rows))
        choose_tokens(self, rows)

    def watched_take(self: Decoding, row: Any, chosen: Chosen) -> None:
        tokenizer = self._host.backbone.tokenizer
        say = watching.say if _is_of_a_service(self) else None
        if watching.say_to is not None:
            say = watching.say_to(tokenizer.decode(row.request.prompt_ids))
        if say is not None:
            said = [*tokenizer(say, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            chosen = chosen._replace(token=said[row.new_tokens])
        take(self, row, chosen)

    monkeypatch.setattr(Decoding, "add", watched_add)
    monkeypatch.setattr(Decoding, "_choose_tokens", watched_choose_tokens)
    monkeypatch.setattr(Decoding, "_take", watched_take)
    yield watching
    watching.go()


def _is_of_a_service(decoding: Decoding) -> bool:
    """Evaluation sends its texts to nobody."""
    return decoding._on_text is not None
