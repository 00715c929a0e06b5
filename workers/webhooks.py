"""The thread of a worker process that sends what is due to webhooks, beside the process's own work.

The first tick of the beat that reaches a process starts it there, and every later one starts it again if it has died.
It needs no broker and no tick to go on: it looks into the database itself. So neither waits for the other, whatever a
receiver does and however long a tick takes.
"""

import threading

import structlog

from registry.outbound.addresses import AddressPolicy
from registry.settings import Settings
from registry.webhooks.sender import SenderSettings, send_until
from registry.wiring import Services

log = structlog.get_logger()

_STOP_SECONDS = 4.0
"""How long the end of a process waits for the thread, which needs about one."""


class WebhookThread:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Start it unless it runs."""
        if not self._stop.is_set() and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            send_until(self._stop, self._services.sessions, sender_settings(self._services.settings))
        except Exception:
            log.exception("the sender of webhooks ended; the next tick starts it again")


def sender_settings(settings: Settings) -> SenderSettings:
    return SenderSettings(AddressPolicy(networks=settings.allowed_networks), settings.webhook_timeout_seconds)
