"""A real worker of Celery, asked what it is."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.local.processes import Ending, spawn, stop
from registry.settings import Settings, child_environment
from workers.code_version import code_version, worker_code
from workers.queue import DEFAULT_QUEUE, TICK, WorkerAnswer, ask_workers, make_queue

WORKER = ("-m", "celery", "-A", "workers.main:app", "worker", "-n", "default@here", "-Q", "default,celery", "-c", "1")


@pytest.fixture
def worker(settings: Settings, services: object, tmp_path: Path) -> Iterator[None]:
    child = spawn(
        "worker",
        (sys.executable, *WORKER),
        tmp_path / "worker.log",
        environment=child_environment(settings) | {"PYTHONPATH": os.pathsep.join(sys.path)},
        folder=tmp_path,
        ending=Ending(),
    )
    yield
    stop([child])


def _ask(settings: Settings) -> list[WorkerAnswer]:
    with make_queue(settings) as queue:
        return [each for each in ask_workers(queue, wait_seconds=1.0) if each.name == "default@here"]


def _until(settings: Settings, log: Path, *, has_ticked: bool) -> WorkerAnswer:
    deadline = time.monotonic() + 120
    while True:
        found = _ask(settings)
        if found and (found[0].seconds_since_tick is not None) == has_ticked:
            return found[0]
        assert time.monotonic() < deadline, log.read_text()


def test_a_worker_says_its_code_its_queues_and_whether_the_beat_ticks(
    worker: None, settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    began = _until(settings, log, has_ticked=False)
    assert (began.code, set(began.queues)) == (worker_code(), {"default", "celery"})
    assert began.seconds_up > 0
    with make_queue(settings) as queue:
        queue.send_task(TICK, queue=DEFAULT_QUEUE)
    assert _until(settings, log, has_ticked=True).seconds_since_tick is not None


def test_a_workers_code_is_more_than_the_methods() -> None:
    assert code_version() != worker_code()
    assert code_version().partition("+")[0] == worker_code().partition("+")[0]
