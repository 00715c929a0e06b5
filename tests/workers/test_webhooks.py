"""Webhooks as worker processes send them: beside the tick, without the broker, and again after a kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.settings import Settings, child_environment
from tests.registry.webhooks.conftest import Hooks, hooks, receiver
from tests.registry.webhooks.receiver import Receiver, receiving, status
from workers.beat import tick_all
from workers.queue import DEFAULT_QUEUE, TICK, make_queue
from workers.webhooks import WebhookThread

__all__ = ["hooks", "receiver"]

_SENDER = """
from registry.settings import load_settings
from registry.webhooks.sender import send_due
from registry.wiring import open_services
from workers.webhooks import sender_settings

settings = load_settings()
with open_services(settings) as services:
    send_due(services.sessions, sender_settings(settings))
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"outbound_networks": "127.0.0.1"})


@pytest.fixture
def thread(hooks: Hooks) -> Iterator[WebhookThread]:
    running = WebhookThread(hooks.services)
    yield running
    running.stop()


def _wait(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_thread_sends_what_comes_while_it_runs(hooks: Hooks, receiver: Receiver, thread: WebhookThread) -> None:
    hooks.create(receiver.url)
    thread.ensure()
    thread.ensure()
    hooks.emit()
    _wait(lambda: hooks.states() == [("delivered", 1, 204)])
    hooks.emit()
    _wait(lambda: len(receiver.received) == 2)


def test_a_hanging_receiver_holds_up_neither_the_tick_nor_new_receivers(
    hooks: Hooks, receiver: Receiver, thread: WebhookThread
) -> None:
    receiver.answer = receiver.hang
    hooks.create(receiver.url, "slow")
    hooks.emit()
    thread.ensure()
    _wait(lambda: bool(receiver.received))
    began = time.monotonic()
    tick_all(hooks.services, lambda job: None)
    with receiving() as other:
        hooks.create(other.url)
        hooks.emit()
        _wait(lambda: len(other.received) == 1)
    assert time.monotonic() - began < 3
    assert hooks.states("slow")[0] == ("pending", 0, None)


def test_a_process_that_ends_waits_no_longer_than_it_says(
    hooks: Hooks, receiver: Receiver, thread: WebhookThread
) -> None:
    receiver.answer = receiver.hang
    hooks.create(receiver.url)
    hooks.emit()
    thread.ensure()
    _wait(lambda: bool(receiver.received))
    began = time.monotonic()
    thread.stop()
    assert time.monotonic() - began < 3
    # Another sender has it at once, and does not wait for the end of a lease.
    receiver.answer = status(200)
    assert hooks.send() == 1
    assert hooks.states() == [("delivered", 1, 200)]


def test_what_a_killed_sender_had_begun_is_sent_again(hooks: Hooks, receiver: Receiver, settings: Settings) -> None:
    receiver.answer = receiver.hang
    hooks.create(receiver.url)
    hooks.emit()
    root = str(Path(__file__).resolve().parents[2])
    environment = child_environment(settings) | {"PYTHONPATH": root}
    child = subprocess.Popen([sys.executable, "-c", _SENDER], env=environment)
    _wait(lambda: bool(receiver.received))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    receiver.answer = status(200)
    # Its lease keeps others away, since it may still be alive.
    assert hooks.send() == 0
    hooks.let_pass(31)
    assert hooks.send() == 1
    assert hooks.states() == [("delivered", 1, 200)]
    assert receiver.ids == [receiver.ids[0]] * 2


def test_a_real_worker_sends_from_its_first_tick_on_and_ends_when_told(
    hooks: Hooks, receiver: Receiver, settings: Settings, tmp_path: Path
) -> None:
    hooks.create(receiver.url)
    hooks.emit()
    options = ("-Q", "default", "--pool", "prefork", "--concurrency", "1", "--without-mingle", "--without-gossip")
    root = str(Path(__file__).resolve().parents[2])
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "workers.main:app", "worker", *options],
            env=child_environment(settings) | {"PYTHONPATH": root},
            stdout=output,
            stderr=output,
        )
        try:
            with make_queue(settings) as queue:
                queue.send_task(TICK, queue=DEFAULT_QUEUE)
            _wait(lambda: hooks.states() == [("delivered", 1, 204)], seconds=60)
            hooks.emit()  # without another tick
            _wait(lambda: len(receiver.received) == 2)
            worker.terminate()
            worker.wait(timeout=60)
        finally:
            worker.kill()
            worker.wait()
    assert worker.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_tick_sweeps_old_events(hooks: Hooks) -> None:
    hooks.create("http://127.0.0.1:1/")
    hooks.emit()
    hooks.execute("update outbox_events set created_at = created_at - interval '31 days'")
    tick_all(hooks.services, lambda job: None)
    assert hooks.deliveries() == []
