"""The example receiver of docs/webhooks.md, run as it stands there: it takes what is ours, and nothing else."""

import os
import re
import socket
import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path

import httpx

from registry.models import WEBHOOK_EVENTS
from registry.outbound.addresses import AddressPolicy
from registry.webhooks.sender import SenderSettings
from tests.registry.webhooks.conftest import Hooks, hooks

__all__ = ["hooks"]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")


def test_every_event_is_on_the_page() -> None:
    rows = [line for line in PAGE.split("\n") if line.startswith("| `")]
    assert set(re.findall(r"`(\w+\.\w+)`", "".join(row.split(" | ")[0] for row in rows))) == set(WEBHOOK_EVENTS)


def test_the_example_receiver_verifies(hooks: Hooks) -> None:
    [script] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in script.split("\n") if line]) <= 11
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    webhook = hooks.create(f"http://127.0.0.1:{port}/hook")
    environment = os.environ | {"SECRET": webhook.secret}
    script = script.replace("8080", str(port))
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        try:
            _wait_for(port)
            hooks.emit(7)
            hooks.send(SenderSettings(AddressPolicy(networks=(ip_network("127.0.0.1"),)), timeout_seconds=5.0))
            assert hooks.states() == [("delivered", 1, 204)]
            assert running.stdout is not None
            assert re.match(r"alias\.moved 2\d{3}-\S+ \{'number': 7\}\n", running.stdout.readline())
            forged = {"webhook-id": "msg_1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,YQ=="}
            try:
                status = httpx.post(webhook.url, content=b"{}", headers=forged).status_code
            except httpx.RemoteProtocolError:
                status = 0
            assert status != 204
        finally:
            running.kill()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the example does not listen")
