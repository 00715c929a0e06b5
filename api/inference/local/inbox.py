"""What comes to the model's thread from others: requests whose prompts are read, and versions that are loaded."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._closed = self._woken = False

    def __len__(self) -> int:
        return len(self._items)

    def waiting(self) -> list[T]:
        """What has come and was not taken."""
        with self._changed:
            return list(self._items)

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, item: T) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def wake(self) -> None:
        """Let who waits look again at what has changed elsewhere."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self) -> None:
        """Wake who waits; nothing more is waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self, *, wait: bool) -> list[T]:
        """All that has come; with `wait` only once there is something, or it is closed or woken."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._items or self._closed or self._woken)
            self._woken = False
            items = list(self._items)
            self._items.clear()
            return items
