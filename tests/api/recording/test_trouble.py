"""The recorder when others are quicker, and when the disk or the database is away: nothing waits for ever."""

import errno
import os
import socket
import threading
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from api.recording.announced import AnnouncedRuns
from api.recording.moving import CallMover
from api.recording.recorder import DISK
from registry.database import transaction
from registry.models import RecordingCount, Run, RunCall
from registry.recordings import ending
from registry.recordings.joining import kind_of, record_calls
from registry.recordings.spool import Spool
from registry.settings import Settings
from registry.trajectories.continuation import tip_of
from registry.wiring import Services
from tests.api.recording.test_ending import reward, two_turns
from tests.api.recording.test_recorder import call_of, recording, task
from tests.api.recording.test_recording import rows, until

__all__ = ["task"]

pytestmark = pytest.mark.usefixtures("task")
HI: list[Any] = [{"role": "user", "content": "hi"}]


def test_two_processes_that_open_one_named_run_lose_no_answer(services: Services, project_id: uuid.UUID) -> None:
    """As those of two keys do whose spans are of one trace."""
    first = call_of(project_id, HI, "1", "a")
    second = replace(call_of(project_id, HI, "2", "b"), run_id=first.run_id)
    lost: list[str] = []
    mover = CallMover(services, lambda project, reason: lost.append(reason))
    moving = threading.Thread(target=mover.move, args=([second],))
    waits = sa.text("select count(*) from pg_locks where not granted")
    with transaction(services.sessions) as session:
        record_calls(session, [first], most_bytes=1_000_000)
        moving.start()
        with services.sessions() as other:
            until(lambda: other.scalar(waits))
    moving.join()
    assert lost == []
    assert len(rows(services, RunCall)) == len(rows(services, Run)) == 2


def test_a_reward_ends_a_run_that_was_long_in_coming(
    settings: Settings, services: Services, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_LOOK_BACK", timedelta(seconds=0.2))
    second, first = two_turns(project_id, "reward")
    with recording(settings, is_started=False) as behind:
        for call in (first, second):
            assert behind.offer(call) is None
        reward(services, project_id)
        time.sleep(0.5)
        behind._mover.start()
        assert behind.flush(10)
        behind._keeper.start()
        [run] = until(lambda: [run for run in rows(services, Run) if run.state == "closing"])
    assert run.close_reason == "reward"


def test_one_answer_waits_for_a_database_that_is_away_and_no_other(settings: Settings, project_id: uuid.UUID) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql+psycopg://nobody@127.0.0.1:{mute.getsockname()[1]}/none?connect_timeout=4"
        with recording(settings.model_copy(update={"database_url": SecretStr(url)}), is_started=False) as recorder:
            assert recorder.offer(call_of(project_id, HI, "1")) is None
            began = time.monotonic()
            assert recorder.offer(call_of(project_id, HI, "2")) is None
            assert time.monotonic() - began < 3.5


def test_what_no_spool_takes_is_counted(settings: Settings, services: Services, project_id: uuid.UUID) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    blocked = settings.home / "file"
    blocked.write_text("")
    with recording(settings.model_copy(update={"spool": blocked / "spool"})) as recorder:
        assert recorder.offer(call_of(project_id, HI, "1")) == DISK
        [count] = until(lambda: rows(services, RecordingCount))
    assert (count.outcome, count.count) == (DISK, 1)


def test_what_a_disk_does_not_let_go_of_is_moved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its answers would wait for ever, and so would every run that could end."""

    def read_only(descriptor: int, length: int) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "ftruncate", read_only)
    spool = Spool(tmp_path, most_bytes=100)
    for line in (b"1", b"2"):
        spool.append(line + b"\n")
        batch = spool.next_batch()
        assert batch is not None
        assert batch.lines == (line,)
        spool.moved(batch)
        assert (spool.next_batch(), spool.waiting_bytes) == (None, 0)
    spool.close()


def test_answers_that_are_numbered_alike_are_forgotten(project_id: uuid.UUID) -> None:
    announced, first = AnnouncedRuns(), call_of(project_id, HI, "1")
    second = replace(first, answer={"role": "assistant", "content": "2"})
    for call in (first, second):
        announced.add(call)
    announced.remove([first, second])
    for call in (first, second):
        assert announced.find(kind_of(call), [tip_of(call.messages, call.answer)]) is None


def test_runs_end_beside_a_dead_spool_that_cannot_be_read(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path
) -> None:
    (tmp_path / "1-dead.lock").touch()
    (tmp_path / "1-dead" / "00000001.jsonl").mkdir(parents=True)  # as good as a disk's error: OSError when it is opened
    ended = replace(call_of(project_id, HI, "1"), ends_run=True)
    with recording(settings.model_copy(update={"spool": tmp_path})) as recorder:
        assert recorder.offer(ended) is None
        [run] = until(lambda: [run for run in rows(services, Run) if run.state == "closed"])
    assert run.close_reason == "header"
