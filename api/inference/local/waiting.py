"""Who is answered next: first come, first served, by the cache that an answer needs in the worst case.

One that does not fit beside what runs may be passed by others that do, so that room is used; but only so often, and
then nobody passes it before it has found room. It knows no request and no model.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_PASSED = 32
"""How often others may pass one that finds no room."""


@dataclass
class Waiter(Generic[T]):
    item: T
    order: int
    """Smaller came earlier."""
    need: int
    """Bytes."""
    passed: int = 0
    """How many came later and were let in before it."""


class WaitingLine(Generic[T]):
    """Not thread-safe."""

    def __init__(self, most_passed: int = MOST_PASSED) -> None:
        self._most_passed = most_passed
        self._waiters: list[Waiter[T]] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, item: T, *, order: int, need: int) -> None:
        """Wait behind all that came earlier."""
        insort(self._waiters, Waiter(item, order, need), key=lambda waiter: waiter.order)

    def admit(self, free_bytes: int, free_places: int) -> list[Waiter[T]]:
        """Who goes on now, in order; they wait no more."""
        admitted: list[Waiter[T]] = []
        left: list[Waiter[T]] = []
        nobody_passes = False
        for waiter in self._waiters:
            room = not nobody_passes and len(admitted) < free_places
            if room and waiter.need <= free_bytes:
                free_bytes -= waiter.need
                admitted.append(waiter)
                for earlier in left:
                    earlier.passed += 1
                nobody_passes = any(earlier.passed >= self._most_passed for earlier in left)
            else:
                left.append(waiter)
                nobody_passes = nobody_passes or waiter.passed >= self._most_passed
        self._waiters = left
        return admitted

    def drop(self, is_gone: Callable[[T], bool]) -> list[T]:
        """Remove those that need no answer any more; returns them."""
        gone = [waiter.item for waiter in self._waiters if is_gone(waiter.item)]
        if gone:
            self._waiters = [waiter for waiter in self._waiters if not is_gone(waiter.item)]
        return gone

    def items(self) -> list[T]:
        return [waiter.item for waiter in self._waiters]
