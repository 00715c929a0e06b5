"""One description of each request serves the synchronous client, the asynchronous one, and the one that answers JSON.

A method of a noun returns a `Call` or a `Stream`: what is sent, and how the answer is read. The decorators `once` and
`many` make of it what the noun's transport makes: a result or an awaitable of it, an iterator or an asynchronous one.
Knows no HTTP.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from memgen_client.answers import Answer
from memgen_client.content import Content
from memgen_client.following import Following, Update
from memgen_client.json_values import JsonObject
from memgen_client.models.rows import Page

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
ModeT = TypeVar("ModeT")


class Sync:
    """Nouns of a client whose calls return when they are done."""


class Async:
    """Nouns of a client whose calls are awaited."""


class AsJson:
    """Nouns of a client whose calls return the service's JSON as it is.

    What they are given comes from elsewhere too, such as a command line, and is checked by the service alone.
    """


@dataclass(frozen=True)
class Call(Generic[ResultT]):
    """One request and its answer."""

    method: str
    path: str
    answer: Answer[ResultT]
    params: Mapping[str, object] = field(default_factory=dict)
    """Query parameters; those that are None are left out."""
    body: Mapping[str, object] | None = None
    content: Content | None = None
    """Bytes in place of a JSON body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """How long the answer may take; it can only lengthen the client's own time."""
    harmless: bool = False
    """Whether the service says that sending the same again is harmless. GET and PUT are so anyway."""
    also: tuple[int, ...] = ()
    """Statuses whose reply is an answer too, beside those of success."""

    @property
    def may_be_repeated(self) -> bool:
        """Whether a second request does no harm where the first was done and its answer was lost."""
        return self.harmless or self.method in ("GET", "PUT") or "Idempotency-Key" in self.headers

    @property
    def can_be_sent_again(self) -> bool:
        """Whether its body is still there for a second request."""
        return self.content is None or self.content.can_restart

    def at(self, cursor: str | None, limit: int) -> Self:
        """The same listing, at another page."""
        return replace(self, params={**self.params, "limit": limit, "cursor": cursor})


@dataclass(frozen=True)
class Download(Call[int]):
    """A reply that becomes a file, whole or not at all; the answer is its size in bytes."""

    target: Path = field(kw_only=True)


@dataclass(frozen=True)
class Wait(Generic[ResultT]):
    """A job, waited for to its end."""

    job_id: str
    following: Callable[[float], Following]
    """Made with the time when the waiting begins, in seconds of the monotonic clock."""
    path: str
    read: Callable[[JsonObject], ResultT]
    on_update: Callable[[Update], None] | None
    check: bool
    """Whether a job that failed or was cancelled raises."""


@dataclass(frozen=True)
class Pages(Generic[ResultT]):
    """Every row of a listing, fetched page by page."""

    call: Call[Page[ResultT]]


@dataclass(frozen=True)
class Follow(Generic[ResultT]):
    """What a job says until it has ended."""

    path: str
    following: Callable[[float], Following]
    read: Callable[[Update], ResultT]


@dataclass(frozen=True)
class Chunks(Generic[ResultT]):
    """An answer as it is written."""

    path: str
    body: Mapping[str, object]
    read: Callable[[JsonObject], ResultT]
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """Silence after which the answer counts as broken off."""


Stream = Pages[ResultT] | Follow[ResultT] | Chunks[ResultT]


class Transport(Protocol):
    """What sends: each mode has one. What it returns is typed by `once` and `many`."""

    def one(self, call: "Call[Any] | Wait[Any]") -> Any: ...

    def many(self, stream: "Stream[Any]") -> Any: ...


class Noun(Generic[ModeT]):
    """Methods about one noun of the API, over the client's one transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class once(Generic[P, ResultT]):  # noqa: N801 - a decorator
    """A method that returns one result."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[ResultT] | Wait[ResultT]]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, noun: None, owner: type) -> Self: ...
    @overload
    def __get__(self, noun: Noun[Sync], owner: type) -> Callable[P, ResultT]: ...
    @overload
    def __get__(self, noun: Noun[Async], owner: type) -> Callable[P, Coroutine[Any, Any, ResultT]]: ...
    @overload
    def __get__(self, noun: Noun[AsJson], owner: type) -> Callable[..., Any]: ...
    def __get__(self, noun: Noun[Any] | None, owner: type) -> object:
        if noun is None:
            return self
        describe = self.describe.__get__(noun, owner)  # bound, so that `help` shows no `self`

        @wraps(describe)
        def method(*args: P.args, **options: P.kwargs) -> Any:
            return noun._transport.one(describe(*args, **options))

        return method


class many(Generic[P, ResultT]):  # noqa: N801 - a decorator
    """A method that returns an iterator."""

    def __init__(
        self, describe: Callable[Concatenate[Any, P], Pages[ResultT] | Follow[ResultT] | Chunks[ResultT]]
    ) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, noun: None, owner: type) -> Self: ...
    @overload
    def __get__(self, noun: Noun[Sync], owner: type) -> Callable[P, Generator[ResultT, None, None]]: ...
    @overload
    def __get__(self, noun: Noun[Async], owner: type) -> Callable[P, AsyncGenerator[ResultT, None]]: ...
    @overload
    def __get__(self, noun: Noun[AsJson], owner: type) -> Callable[..., Generator[Any, None, None]]: ...
    def __get__(self, noun: Noun[Any] | None, owner: type) -> object:
        if noun is None:
            return self
        describe = self.describe.__get__(noun, owner)

        @wraps(describe)
        def method(*args: P.args, **options: P.kwargs) -> Any:
            return noun._transport.many(describe(*args, **options))

        return method


def keyed(idempotency_key: str | None) -> dict[str, str]:
    """Headers of a creation that the service does once for a key: the caller's, or one of this call's own, so that it
    may be sent again."""
    return {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
