"""The sender: it posts what is due to its receivers, many webhooks at once, one request of each at a time.

A receiver that hangs costs its own webhook the time-out and nobody else anything. Any number of senders may run, in any
number of processes; the rows say who has what (`registry.webhooks.deliveries`).
"""

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from registry.database import transaction
from registry.errors import AddressRefused
from registry.json_text import one_line
from registry.models import WebhookDelivery
from registry.outbound.addresses import AddressPolicy
from registry.outbound.clients import make_client
from registry.webhooks.deliveries import (
    Attempt,
    database_now,
    lease_webhooks,
    next_delivery,
    record_attempt,
    release_webhook,
)
from registry.webhooks.signing import signed_headers
from registry.webhooks.webhooks import current_keys

log = structlog.get_logger()

_AT_ONCE = 32
_IN_A_ROW = 50
"""Deliveries that a webhook gets before others are looked at again."""
_LEASE_BEYOND_TIMEOUT = timedelta(seconds=20)
_SHOWN_BYTES = 500
"""What is read of a refusal's body, to be shown. That of a success is not read."""
_LOOK_SECONDS = 0.5
_DATABASE_AWAY_SECONDS = 5.0
_LEAVE_SECONDS = 1.0

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class SenderSettings:
    policy: AddressPolicy
    timeout_seconds: float
    """For all of an attempt: to resolve, connect, send and be answered."""

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.timeout_seconds) + _LEASE_BEYOND_TIMEOUT


@dataclass(frozen=True)
class _Message:
    """All that one attempt needs, so that no session is open while it lasts."""

    webhook_id: uuid.UUID
    delivery_id: uuid.UUID
    webhook: str
    url: str
    headers: Mapping[str, str]
    body: bytes


def send_until(stop: threading.Event, sessions: sessionmaker[Session], settings: SenderSettings) -> None:
    """Send what is due as it becomes due, until `stop` is set; it returns a second or two later."""
    asyncio.run(_Sending(sessions, settings, stop).run(until_idle=False))


def send_due(sessions: sessionmaker[Session], settings: SenderSettings) -> int:
    """Send until nothing is due. Returns the number of attempts."""
    return asyncio.run(_Sending(sessions, settings, threading.Event()).run(until_idle=True))


def message_body(delivery: WebhookDelivery) -> bytes:
    """The JSON that is sent: the same bytes at each attempt."""
    event = delivery.event
    payload = {"type": event.event, "timestamp": event.created_at.isoformat(), "data": event.data}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def message_id(event_id: uuid.UUID) -> str:
    """The same for all attempts at an event, by which receivers know one that they have."""
    return f"msg_{event_id.hex}"


class _Sending:
    def __init__(self, sessions: sessionmaker[Session], settings: SenderSettings, stop: threading.Event) -> None:
        self._sessions, self._settings, self._stop = sessions, settings, stop
        self._lease_id = uuid.uuid4()
        self._attempts = 0
        self._database = ThreadPoolExecutor(4, thread_name_prefix="webhook-rows")

    async def run(self, *, until_idle: bool) -> int:
        # A connection for each request: none is found dead because its receiver has closed it meanwhile.
        limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=0)
        timeout, running = self._settings.timeout_seconds, set[asyncio.Task[None]]()
        try:
            async with make_client(self._settings.policy, timeout=timeout, limits=limits) as client:
                while True:
                    if self._stop.is_set():
                        await _leave(running)
                        return self._attempts
                    taken = await self._take(_AT_ONCE - len(running))
                    running |= {asyncio.create_task(self._serve(client, webhook_id)) for webhook_id in taken}
                    if running:
                        _, running = await asyncio.wait(
                            running, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                        )
                    elif until_idle:
                        return self._attempts
                    else:
                        await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._database.shutdown()

    async def _take(self, most: int) -> Sequence[uuid.UUID]:
        try:
            return await self._rows(self._lease, most) if most else []
        except SQLAlchemyError as error:
            log.warning("what webhooks wait for could not be read", error=str(error).partition("\n")[0])
            await asyncio.sleep(_DATABASE_AWAY_SECONDS)
            return []

    async def _rows(self, function: Callable[..., _Found], *arguments: Any) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._database, function, *arguments)

    def _lease(self, most: int) -> Sequence[uuid.UUID]:
        with transaction(self._sessions) as session:
            now = database_now(session)
            return lease_webhooks(session, now, self._lease_id, self._settings.lease, most=most)

    async def _serve(self, client: httpx.AsyncClient, webhook_id: uuid.UUID) -> None:
        """Send a webhook's deliveries in their order, as long as it has some."""
        try:
            for _ in range(_IN_A_ROW):
                message = await self._rows(self._next, webhook_id)
                if message is None:
                    break
                attempt = await _post(client, message, self._settings.timeout_seconds)
                self._attempts += 1
                await self._rows(self._record, message, attempt)
                if self._stop.is_set():
                    break
            await self._rows(self._release, webhook_id)
        except asyncio.CancelledError:
            await self._rows(self._release, webhook_id)  # another sender need not wait for the end of the lease
            raise
        except Exception:
            # Such as a database that is away: the lease ends by itself, and what was not recorded is sent again.
            log.exception("a webhook could not be served", webhook=str(webhook_id))

    def _next(self, webhook_id: uuid.UUID) -> _Message | None:
        with transaction(self._sessions) as session:
            now = database_now(session)
            delivery = next_delivery(session, webhook_id, self._lease_id, now, self._settings.lease)
            return None if delivery is None else _message(delivery, now)

    def _record(self, message: _Message, attempt: Attempt) -> None:
        with transaction(self._sessions) as session:
            ids = message.webhook_id, message.delivery_id, self._lease_id
            recorded = record_attempt(session, *ids, attempt, database_now(session))
            state = None if recorded is None else recorded.state
        names = {"webhook": message.webhook, "delivery": str(message.delivery_id)}
        if state is None:
            log.warning("an attempt at a delivery is not recorded: the webhook was taken over, or is gone", **names)
        elif state == "given_up":
            log.warning("a delivery to a webhook is given up", status=attempt.status, **names)

    def _release(self, webhook_id: uuid.UUID) -> None:
        with transaction(self._sessions) as session:
            release_webhook(session, webhook_id, self._lease_id)


async def _leave(running: Iterable[asyncio.Task[None]]) -> None:
    """Let attempts that are nearly done end, and give the others up: they are made again, under the same id."""
    if waiting := set(running):
        _, late = await asyncio.wait(waiting, timeout=_LEAVE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _message(delivery: WebhookDelivery, now: datetime) -> _Message:
    webhook, body = delivery.webhook, message_body(delivery)
    sent_id = message_id(delivery.event_id)
    signed = signed_headers(current_keys(webhook, now), sent_id, int(now.timestamp()), body)
    headers = {"Content-Type": "application/json", "User-Agent": "memgen-webhooks", **signed}
    return _Message(webhook.id, delivery.id, webhook.name, webhook.url, headers, body)


async def _post(client: httpx.AsyncClient, message: _Message, seconds: float) -> Attempt:
    """One request. The status decides: once it is there, what becomes of the body does not matter."""
    try:
        async with asyncio.timeout(seconds):
            request = client.build_request("POST", message.url, content=message.body, headers=message.headers)
            response = await client.send(request, stream=True)
            try:
                return await _judge(response)
            finally:
                await response.aclose()
    except (TimeoutError, httpx.TimeoutException):
        return Attempt(None, f"no answer within {seconds:g} s")
    except AddressRefused as error:
        return Attempt(None, str(error))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return Attempt(None, one_line(f"{type(error).__name__}: {error}", _SHOWN_BYTES))


async def _judge(response: httpx.Response) -> Attempt:
    status = response.status_code
    if response.is_success:
        return Attempt(status, None)
    if response.is_redirect:
        return Attempt(status, f"answered {status}, a redirect, which is not followed; give the webhook the final URL")
    return Attempt(status, f"answered {status}: {await _excerpt(response)}", _wished_seconds(response))


async def _excerpt(response: httpx.Response) -> str:
    """The beginning of a refusal's body, to be shown; as much as comes at once."""
    found = bytearray()
    try:
        async with asyncio.timeout(1):
            async for part in response.aiter_raw():
                found += part
                if len(found) >= _SHOWN_BYTES:
                    break
    except (TimeoutError, httpx.HTTPError, OSError):
        pass
    return one_line(found[:_SHOWN_BYTES].decode("utf-8", "replace"), _SHOWN_BYTES)


def _wished_seconds(response: httpx.Response) -> int:
    text: Any = response.headers.get("retry-after", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
