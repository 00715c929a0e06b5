"""Recorders that can move nothing, and disks that do not give back what they took: waited for, and not for ever."""

import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.recording import left_behind
from api.recording import recorder as module
from registry.database import transaction
from registry.models import LiveRecorder, RecordingCount, Run, RunCall, Trajectory
from registry.recordings import recorders
from registry.recordings.joining import lock_recording
from registry.recordings.recorders import LOST, count_stuck
from registry.settings import Settings
from registry.wiring import Services
from tests.api.recording.test_ending import machine, reward, two_turns
from tests.api.recording.test_recorder import call_of, recording, task
from tests.api.recording.test_recording import rows, until

__all__ = ["task"]

pytestmark = pytest.mark.usefixtures("task")


class UnreadableFile:
    """A file in whose place there is something that can't be read: as good as a disk's error."""

    def __init__(self, path: Path) -> None:
        self._path, self._kept, self.folder = path, path.with_suffix(".kept"), path.parent
        path.rename(self._kept)
        path.mkdir()

    def mend(self) -> None:
        self._path.rmdir()
        self._kept.rename(self._path)


class Log:
    """Notes how loud each line of a log is."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def error(self, event: str, **facts: Any) -> None:
        self.told.append("error")

    def warning(self, event: str, **facts: Any) -> None:
        self.told.append("warning")


def the_segment(folder: Path) -> Path:
    [segment] = folder.glob("*/*.jsonl")
    return segment


def stuck(services: Services, project_id: uuid.UUID) -> int:
    with transaction(services.sessions) as session:
        return count_stuck(session, project_id)


def weights(trajectory: Trajectory) -> list[int]:
    return [message["weight"] for message in trajectory.messages if message["role"] == "assistant"]


@pytest.mark.parametrize("end", ["idle", "header", "reward"])
def test_runs_end_without_a_recorder_that_is_stuck(
    settings: Settings,
    services: Services,
    project_id: uuid.UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    log = Log()
    monkeypatch.setattr(module, "log", log)
    monkeypatch.setattr(module, "_STUCK_SECONDS", 1.0)
    second, first = two_turns(project_id, end)
    later = replace(first, completion_id="later", ends_run=True)
    with machine(settings, tmp_path / "one", is_started=False) as one, machine(settings, tmp_path / "two") as two:
        assert one.offer(first) is None
        assert two.offer(second) is None
        assert two.flush(10)
        with transaction(services.sessions) as session:
            lock_recording(session, project_id, shared=False)  # as a deletion that hangs has it
            one.start()
            if end == "reward":
                reward(services, project_id)
            [trajectory] = until(lambda: rows(services, Trajectory))
            assert weights(trajectory) == [0, 1], "of the answer that waits only what the next request said is known"
            assert one.offer(later) is None, "it is still taken"
            assert until(lambda: stuck(services, project_id) == 2)
        assert one.flush(10)
        assert until(lambda: stuck(services, project_id) == 0)
    assert {row.completion_id for row in rows(services, RunCall)} == {
        each.completion_id for each in (first, second, later)
    }
    assert len(rows(services, Run)) == 3, "each of those that came in late is a run of its own"
    assert rows(services, LiveRecorder) == []
    assert log.told == ["error", "warning"], "once when it begins, once when it is over"


def test_a_file_that_cannot_be_read_is_lost_with_its_answers_and_nothing_behind_it(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNREADABLE_SECONDS", 0.5)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.1)
    calls = [call_of(project_id, [{"role": "user", "content": f"run {number}"}], "ho") for number in range(3)]

    def counts() -> dict[str, int]:
        return {row.outcome: row.count for row in rows(services, RecordingCount)}

    with machine(settings, tmp_path, is_started=False) as recorder:
        for call in calls[:2]:
            assert recorder.offer(call) is None
        file = UnreadableFile(the_segment(tmp_path))
        recorder.start()
        until(lambda: counts() == {LOST: 2})
        assert recorder.waiting(project_id) == 0
        assert recorder.offer(calls[2]) is None
        assert recorder.flush(10)
        assert [row.completion_id for row in rows(services, RunCall)] == [calls[2].completion_id]
    assert rows(services, LiveRecorder) == [], "nobody waits for what is lost"
    file.mend()
    with machine(settings, tmp_path):
        until(lambda: not file.folder.exists())
    assert len(rows(services, RunCall)) == 3
    assert list(tmp_path.iterdir()) == []
    assert counts() == {LOST: 2, "recorded": 3}, "it came in after all"


def test_a_recorder_that_gets_on_is_not_stuck_however_far_it_is_behind(
    settings: Settings, services: Services, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.recording import moving

    real, count, standstill = moving.record_calls, 15, 3.0

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return real(*args, **options)

    monkeypatch.setattr(module, "_STUCK_SECONDS", standstill)
    monkeypatch.setattr(moving, "record_calls", slow)
    calls = [call_of(project_id, [{"role": "user", "content": f"run {number}"}], "ho") for number in range(count)]
    with recording(settings, is_started=False) as recorder:
        one_line = len(calls[0].to_line()) + 100
        next_batch = recorder._spool.next_batch
        monkeypatch.setattr(recorder._spool, "next_batch", lambda: next_batch(one_line))
        for call in calls:
            assert recorder.offer(call) is None
        began, seen = time.monotonic(), []
        recorder.start()
        while len(rows(services, RunCall)) < count:
            seen += [row.is_stuck for row in rows(services, LiveRecorder)]
            time.sleep(0.1)
        assert time.monotonic() - began > standstill, "else it shows nothing"
    assert seen
    assert not any(seen)


def test_time_without_a_database_is_no_standstill(
    settings: Settings, services: Services, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **options: Any) -> Any:
        raise sa.exc.OperationalError("select", {}, Exception("gone"))

    with recording(settings, is_started=False) as recorder:
        recorder.offer(call_of(project_id, [{"role": "user", "content": "hi"}], "ho"))
        recorder._waiting._waiting_since -= 400  # as if it had waited so long
        monkeypatch.setattr(module, "say_moved", unreachable)
        with pytest.raises(sa.exc.OperationalError):
            recorder._keep()
        monkeypatch.undo()
        recorder._keep()
        assert [row.is_stuck for row in rows(services, LiveRecorder)] == [False]
        recorder._away_at -= 400
        recorder._keep()
        assert [row.is_stuck for row in rows(services, LiveRecorder)] == [True]
        recorder.start()
        assert recorder.flush(10)


def test_what_can_be_read_beside_a_dead_spool_that_cannot_is_taken_over(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unreadable one comes first, holds runs open as long as any other that is silent, and is tried again."""
    monkeypatch.setattr(left_behind, "_RETRY_SECONDS", 0.5)
    calls = [call_of(project_id, [{"role": "user", "content": f"run {number}"}], "ho") for number in range(3)]
    calls = [replace(call, ends_run=True) for call in calls]
    for call in calls[:2]:
        with machine(settings, tmp_path, is_started=False) as dead:
            assert dead.offer(call) is None
    broken, _ = sorted(tmp_path.glob("*/*.jsonl"))
    unreadable = broken.with_name("00000000.jsonl")
    unreadable.mkdir()  # in front of what can be read
    with machine(settings, tmp_path) as recorder:
        until(lambda: len(rows(services, RunCall)) == 2)
        assert not broken.exists()
        [left] = [row for row in rows(services, LiveRecorder) if row.name == broken.parent.name]
        time.sleep(1.5)  # it is tried again meanwhile
        [again] = [row for row in rows(services, LiveRecorder) if row.name == broken.parent.name]
        assert again.seen_at == left.seen_at, "nobody speaks for it any more"
        assert recorder.offer(calls[2]) is None
        monkeypatch.setattr(recorders, "_IS_LOST", LiveRecorder.seen_at <= left.seen_at)
        until(lambda: broken.parent.name not in {row.name for row in rows(services, LiveRecorder)})
        unreadable.rmdir()
        until(lambda: not broken.parent.exists())
    assert len(rows(services, RunCall)) == 3


def test_who_cannot_get_on_with_a_dead_spool_speaks_for_it_once(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would hold all runs open for as long as it tries. It speaks anew once the database was away."""
    spoken: list[str] = []
    real = left_behind.speak_for

    def count(session: Any, name: str, oldest: Any) -> None:
        spoken.append(name)
        real(session, name, oldest)

    def refused(calls: Any) -> None:
        raise sa.exc.OperationalError("insert", {}, Exception("no room"))

    with machine(settings, tmp_path, is_started=False) as dead:
        dead.offer(call_of(project_id, [{"role": "user", "content": "hi"}], "ho"))
    monkeypatch.setattr(left_behind, "speak_for", count)
    with machine(settings, tmp_path, is_started=False) as recorder:
        monkeypatch.setattr(recorder._calls, "move", refused)
        for away_at in (0.0, 0.0, time.monotonic() + 60):
            with pytest.raises(sa.exc.OperationalError):
                recorder._left.take_over(away_at)
        assert len(spoken) == 2
