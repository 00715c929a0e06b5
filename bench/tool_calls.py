"""A task that can be learned in minutes: requests in plain words, each answered by one call with slots to copy.

Four call types, several phrasings of each. The bare base gets none right, and guessing the most frequent answer one or
two in a hundred. A pure function of the seed.
"""

from dataclasses import dataclass
from typing import Any

import torch

_NAMES = ("Anna", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Hugo", "Iris", "Jonas", "Karim", "Lucia")
_LABELS = ("pasta", "laundry", "tea", "meeting", "bread", "workout", "call", "nap", "garden", "oven")
_NOTES = ("I am late", "dinner is ready", "see you at noon", "the train is full", "bring the keys", "all is well")
_MONEY = ("EUR", "USD", "GBP", "JPY", "CHF", "SEK", "CAD", "INR")
_PLACES = ("Casa Verde", "Blue Door", "Nordlicht", "Chez Paul", "Lotus", "Old Mill", "Taverna Sol", "Kiku")
_PHRASINGS = {
    "set_timer({a}, {b!r})": ("Set a timer of {a} minutes for the {b}.", "Remind me of the {b} in {a} minutes."),
    "send({a!r}, {b!r})": ("Tell {a}: {b}.", "Send {a} this note: {b}."),
    "convert({a}, {b!r}, {c!r})": ("How much is {a} {b} in {c}?", "Change {a} {b} to {c}, please."),
    "book({a!r}, {b}, {c!r})": ("Book a table for {b} at {a}, {c}.", "We are {b}, get us into {a} at {c}."),
}


@dataclass(frozen=True)
class ToolCall:
    """A request and the one call that answers it."""

    request: str
    call: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [{"role": "user", "content": self.request}, {"role": "assistant", "content": self.call}]


def tool_calls(count: int, *, seed: int, without: frozenset[str] = frozenset()) -> list[ToolCall]:
    """`count` different items, none of them a request in `without`."""
    generator = torch.Generator().manual_seed(seed)
    items: dict[str, ToolCall] = {}
    while len(items) < count:
        item = _draw(generator)
        if item.request not in without:
            items.setdefault(item.request, item)
    return list(items.values())


def _draw(generator: torch.Generator) -> ToolCall:
    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def one_of(options: tuple[str, ...]) -> str:
        return options[number(0, len(options) - 1)]

    call = one_of(tuple(_PHRASINGS))
    slots: dict[str, object]
    if call.startswith("set_timer"):
        slots = {"a": number(2, 90), "b": one_of(_LABELS)}
    elif call.startswith("send"):
        slots = {"a": one_of(_NAMES), "b": one_of(_NOTES)}
    elif call.startswith("convert"):
        slots = {"a": number(5, 950), "b": one_of(_MONEY), "c": one_of(_MONEY)}
    else:
        clock = f"{number(11, 22)}:{15 * number(0, 3):02d}"
        slots = {"a": one_of(_PLACES), "b": number(2, 12), "c": clock}
    return ToolCall(one_of(_PHRASINGS[call]).format(**slots), call.format(**slots))
