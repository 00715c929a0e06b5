"""What both transports do with httpx alike: options of a connection, requests from calls, replies, errors."""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

import httpx

from memgen_client.calls import Call
from memgen_client.errors import ApiUnreachable, ClientError, NotAuthenticated, UnexpectedReply
from memgen_client.json_values import JsonObject
from memgen_client.refusals import foreign, refusal
from memgen_client.retries import Retries

PoolT = TypeVar("PoolT")

PAGE_ITEMS = 200
"""The most that a listing gives."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.LocalProtocolError)
_HEADER = re.compile(r"[!-~]([ -~]*[!-~])?")
"""A value of a header that any server reads as it was written."""


@dataclass(frozen=True)
class Terms:
    """How a client speaks to its service."""

    base_url: str
    api_key: str
    timeout_seconds: float
    retries: Retries


class ConnectionOptions(TypedDict):
    base_url: str
    headers: dict[str, str]
    trust_env: bool
    verify: ssl.SSLContext | bool


class RequestOptions(TypedDict):
    method: str
    url: str
    params: dict[str, str]
    headers: dict[str, str]
    timeout: httpx.Timeout


class LocalPool(Generic[PoolT]):
    """A pool of connections for each process, or each event loop: a child that shared its parent's would read the
    parent's answers, and connections of a loop that has ended are dead."""

    def __init__(self, make: Callable[[], PoolT], where: Callable[[], object]) -> None:
        """`where` names the process or the loop that asks."""
        self._make, self._where = make, where
        self._pool: PoolT | None = None
        self._at: object = None

    def get(self) -> PoolT:
        here = self._where()
        if self._pool is None or here != self._at:
            self._at, self._pool = here, self._make()
        return self._pool


def connection_options(terms: Terms) -> ConnectionOptions:
    """
    Raises:
        ApiUnreachable: the URL is none.
        NotAuthenticated: the key is none.
    """
    url = terms.base_url.rstrip("/")
    try:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("expected a URL that begins with http:// or https://")
        # Without TLS there is nobody to trust, and to read whom takes longer than most requests.
        verify: ssl.SSLContext | bool = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if parsed.scheme == "http" else True
    except (httpx.InvalidURL, ValueError) as error:
        raise ApiUnreachable(url, _reason(error), was_sent=False) from error
    api_key = terms.api_key.strip()  # as it comes from a file, with the end of its line
    if api_key and not _HEADER.fullmatch(api_key):  # httpx would say so with the key in its words
        raise NotAuthenticated(401, "unknown_key", "the API key has characters that no key has; was it copied whole?")
    key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {
        "base_url": url,
        "headers": {**key, "User-Agent": "memgen-client"},
        # Whatever proxy the environment names, it can't reach our own machine.
        "trust_env": parsed.host not in _LOOPBACK,
        "verify": verify,
    }


def request_options(call: Call[Any], timeout_seconds: float) -> RequestOptions:
    """Raises ValueError: a header has a value that none may have."""
    for name, value in call.headers.items():
        if not _HEADER.fullmatch(value):
            raise ValueError(f"{name} {value!r}; expected printable ASCII")
    seconds = max(call.seconds, timeout_seconds)
    return {
        "method": call.method,
        "url": call.path,
        "params": query(call.params),
        "headers": dict(call.headers),
        "timeout": httpx.Timeout(seconds, connect=timeout_seconds),
    }


def query(params: Mapping[str, object]) -> dict[str, str]:
    """As the service reads them: what is None is left out, and truth is spelled as JSON's."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


def check(response: httpx.Response) -> None:
    """Raises ApiError. The response was read."""
    if not response.is_success:
        headers = {name.lower(): value for name, value in response.headers.items()}
        raise refusal(response.status_code, _object(response), headers, str(response.url))


def check_stream(response: httpx.Response) -> None:
    """Raises UnexpectedReply: the reply is none that is read as it comes."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise UnexpectedReply(foreign(str(response.url), response.status_code))


def json_of(response: httpx.Response, also: tuple[int, ...] = ()) -> JsonObject:
    """The reply's JSON object; `also` are statuses that are answers beside those of success.

    Raises:
        ApiError: it is a refusal.
        UnexpectedReply: it is none of this service's replies.
    """
    if response.status_code not in also:
        check(response)
    body = _object(response)
    if not body and response.content.strip() != b"{}":
        raise UnexpectedReply(foreign(str(response.url), response.status_code))
    return body


def pause_before_next_try(terms: Terms, call: Call[Any], failed: int, error: ClientError) -> float | None:
    """Seconds to wait before a call is sent again after `failed` tries; None where it is not."""
    if not call.can_be_sent_again:
        return None
    return terms.retries.pause(failed, error, may_be_repeated=call.may_be_repeated)


def failure(url: str, error: httpx.HTTPError, seconds: float | None = None) -> ClientError:
    """What httpx's error means to who called."""
    if isinstance(error, httpx.DecodingError):
        return UnexpectedReply(
            f"{url} sent a reply that can't be unpacked ({_reason(error)}). Is MEMGEN_API_URL right?"
        )
    timed_out = isinstance(error, httpx.TimeoutException) and seconds is not None
    reason = f"nothing came within {seconds:g} s" if timed_out else _reason(error)
    return ApiUnreachable(url, reason, was_sent=not isinstance(error, _NOT_SENT))


def broken_off(url: str) -> ApiUnreachable:
    return ApiUnreachable(url, "the reply broke off")


def _object(response: httpx.Response) -> JsonObject:
    """Empty where the reply is no JSON object."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
