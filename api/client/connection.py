"""One connection to an API: sends requests, reads replies, errors and event streams. Knows no path and no noun.

Errors:

ClientError
├── ApiError          the API answered and refused; carries its status, code and detail
└── ApiUnreachable    no answer: nothing listens there, it broke off, or it took too long
"""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from api.http.json_object import JsonObject, JsonObjects

_SILENCE_SECONDS = 30.0  # a silent stream is opened anew after it: a dead connection looks like a quiet job
_PAGE_ITEMS = 200  # the most that a listing gives
_END = "[DONE]"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ClientError(Exception):
    """Root of the tree."""


class ApiError(ClientError):
    """The API refused. `code` is stable for programs, `detail` is for people."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class ApiUnreachable(ClientError):
    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"No answer from the API at {url} ({reason}). Start it with `memgen up`, or set MEMGEN_API_URL to where "
            "it runs."
        )
        self.url = url


class Connection:
    """A pool of connections to one API, with one key."""

    def __init__(self, base_url: str, api_key: str, timeout_seconds: float) -> None:
        self._url = base_url.rstrip("/")
        self._timeout = timeout_seconds
        headers = {"Authorization": f"Bearer {api_key}"}
        try:
            local = _is_local(self._url)
            # Without TLS there is nobody to trust, and reading whom takes longer than most requests.
            plain = httpx.URL(self._url).scheme == "http"
            self._http = httpx.Client(
                base_url=self._url,
                headers=headers,
                trust_env=not local,
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ApiUnreachable(self._url, _reason(error)) from error

    def close(self) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        timeout: float = 0.0,
        idempotency_key: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> JsonObject:
        """The reply's JSON object.

        Args:
            timeout: seconds; it can only lengthen the connection's own.
            idempotency_key: the same key with the same body again gets the first reply again.
            options: httpx's own, such as `params` and `content`.

        Raises:
            ApiError, ApiUnreachable: see above.
        """
        seconds = max(timeout, self._timeout)
        sent = {**(headers or {}), **({"Idempotency-Key": idempotency_key} if idempotency_key else {})}
        try:
            response = self._http.request(method, path, json=body, timeout=seconds, headers=sent, **options)
        except httpx.TimeoutException as error:
            raise ApiUnreachable(self._url, f"nothing came within {seconds:g} s") from error
        except httpx.TransportError as error:
            raise ApiUnreachable(self._url, _reason(error)) from error
        _check(response)
        return _json(response)

    def data(self, path: str, params: JsonObject | None = None) -> JsonObjects:
        """The items of a listing that has no pages. Raises as `send`."""
        items: JsonObjects = self.send("GET", path, params=params)["data"]
        return items

    def page(self, path: str, **params: Any) -> JsonObject:
        """One page of a listing: `data`, and `next_cursor` for the next one. Parameters that are None are left out."""
        return self.send("GET", path, params={name: value for name, value in params.items() if value is not None})

    def all_pages(self, path: str, **params: Any) -> Iterator[JsonObject]:
        """Every item of a listing, fetched page by page. Raises as `send`."""
        cursor = None
        while True:
            page = self.page(path, limit=_PAGE_ITEMS, cursor=cursor, **params)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def download(self, path: str, target: Path, *, timeout: float) -> int:
        """Write the reply's bytes to `target`, which is whole or absent, and return their number. Raises as `send`."""
        part = target.with_name(f"{target.name}.part")
        try:
            with (
                self._http.stream("GET", path, timeout=httpx.Timeout(self._timeout, read=timeout)) as response,
                part.open("wb") as file,
            ):
                if response.is_error:
                    response.read()
                    _check(response)
                for block in response.iter_bytes():
                    file.write(block)
            part.replace(target)
        except httpx.TransportError as error:
            raise ApiUnreachable(self._url, _reason(error)) from error
        finally:
            part.unlink(missing_ok=True)
        return target.stat().st_size

    def stream(self, path: str, after: int) -> Iterator[tuple[int, str, JsonObject]]:
        """Server-sent events behind `after`: id (0 where it has none), kind and data.

        It ends when the server ends it, and after a long silence. Raises as `send`.
        """
        headers = {"Last-Event-ID": str(after)}
        try:
            with self._lines("GET", path, _SILENCE_SECONDS, headers=headers) as lines:
                yield from _server_sent_events(lines)
        except httpx.ReadTimeout:
            return
        except httpx.TransportError as error:
            raise ApiUnreachable(self._url, _reason(error)) from error

    def chunks(self, path: str, body: JsonObject, *, timeout: float) -> Iterator[JsonObject]:
        """A reply in OpenAI's stream format, one JSON object after the other.

        Args:
            timeout: seconds of silence after which the reply counts as broken off.

        Raises:
            ApiError: also if the API fails in the middle; then with the status that it began with.
            ApiUnreachable: also if the reply breaks off.
        """
        try:
            with self._lines("POST", path, timeout, json=body) as lines:
                for line in lines:
                    name, _, data = line.partition(": ")
                    if name != "data":
                        continue
                    if data == _END:
                        return
                    chunk: JsonObject = json.loads(data)
                    if "error" in chunk:
                        raise _openai_error(200, chunk["error"])
                    yield chunk
        except httpx.TransportError as error:
            raise ApiUnreachable(self._url, _reason(error)) from error
        raise ApiUnreachable(self._url, "the reply broke off")

    @contextmanager
    def _lines(self, method: str, path: str, silence_seconds: float, **options: Any) -> Iterator[Iterator[str]]:
        """The lines of a reply that is read as it comes; raises ApiError if it is a refusal."""
        timeout = httpx.Timeout(self._timeout, read=silence_seconds)
        with self._http.stream(method, path, timeout=timeout, **options) as response:
            if response.is_error:
                response.read()
                _check(response)
            yield _lines_of(response.iter_bytes())


def ask(url: str, path: str, *, seconds: float) -> httpx.Response:
    """What an API answers to anybody who asks for a path, whatever its status. Raises ApiUnreachable."""
    base_url = url.rstrip("/")
    try:
        return httpx.get(f"{base_url}{path}", timeout=seconds, trust_env=not _is_local(base_url))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ApiUnreachable(base_url, _reason(error)) from error


def _is_local(url: str) -> bool:
    """Whether it is our own machine's, which no proxy that the environment names can reach."""
    return httpx.URL(url).host in _LOOPBACK


def _lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    """The lines of a stream, which end at a newline and nowhere else: httpx also cuts at U+2028 and
    its like, which JSON holds as they are. What follows the last newline is no line: the stream broke off."""
    begun: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for other in others:
            yield b"".join(begun).removesuffix(b"\r").decode()
            begun = [other]


def _server_sent_events(lines: Iterator[str]) -> Iterator[tuple[int, str, JsonObject]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield int(fields.get("id", 0)), fields.get("event", "message"), json.loads(fields["data"])
            fields = {}


def _check(response: httpx.Response) -> None:
    """Raises ApiError from problem+json, from OpenAI's error shape, or from whatever else came."""
    if response.is_success:
        return
    status, body = response.status_code, _body(response)
    inner = body.get("error")
    if isinstance(inner, dict):
        raise _openai_error(status, inner)
    if "detail" not in body:
        raise _foreign(response)
    code = str(body.get("type", "")).rpartition(":")[2]
    raise ApiError(status, code or f"http_{status}", str(body["detail"]))


def _openai_error(status: int, error: JsonObject) -> ApiError:
    return ApiError(status, str(error.get("code")), str(error.get("message")))


def _json(response: httpx.Response) -> JsonObject:
    body = _body(response)
    if not body:
        raise _foreign(response)
    return body


def _body(response: httpx.Response) -> JsonObject:
    """The reply as a JSON object; empty where it is none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _foreign(response: httpx.Response) -> ApiError:
    status = response.status_code
    return ApiError(
        status,
        f"http_{status}",
        f"{response.url} answered {status}, and not as the MemGen API would; expected JSON of its own. Is "
        "MEMGEN_API_URL right?",
    )


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
