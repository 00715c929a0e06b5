"""When runs end that several processes answer: not before each has moved what it took."""

import itertools
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api.recording.recorder import Recorder
from api.recording.waiting import WaitingCalls
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import FeedbackDiffers
from registry.models import Exposure, LiveRecorder, Run, RunCall, Trajectory
from registry.recordings.call import RecordedCall
from registry.recordings.recorders import seconds_behind
from registry.serving.feedback import Rating
from registry.serving.run_feedback import receive_session_feedback
from registry.settings import Settings
from registry.wiring import Services
from tests.api.recording.test_recorder import call_of, recording, task
from tests.api.recording.test_recording import rows, until
from tests.query_counts import record_queries

__all__ = ["task"]

pytestmark = pytest.mark.usefixtures("task")
ENOUGH_SECONDS = 6.0
"""In which a run would be written that nothing holds open."""


@contextmanager
def machine(settings: Settings, folder: Path, *, is_started: bool = True) -> Iterator[Recorder]:
    """A recorder on a machine of its own."""
    with recording(settings.model_copy(update={"spool": folder}), is_started=is_started) as recorder:
        yield recorder


def two_turns(project_id: uuid.UUID, end: str) -> tuple[RecordedCall, RecordedCall]:
    """Of one run: its second answer, and its first, which is the slower one. With the idle time of a run that ends by
    silence."""
    hi: list[Any] = [{"role": "user", "content": "hi"}]
    first = call_of(project_id, hi, "1", "s")
    more = [*hi, {"role": "assistant", "content": "1"}, {"role": "user", "content": "and?"}]
    second = replace(call_of(project_id, more, "2", "s"), ends_run=end == "header")
    idle = 0.5 if end == "idle" else 900.0
    return replace(second, idle_seconds=idle), replace(first, idle_seconds=idle)


def reward(services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        receive_session_feedback(session, project_id, "s", Rating(0.5, "key test", "environment"))


@pytest.mark.parametrize("end", ["idle", "header", "reward"])
def test_what_waits_in_another_process_holds_its_run_open(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path, end: str
) -> None:
    second, first = two_turns(project_id, end)
    with machine(settings, tmp_path / "slow", is_started=False) as slow, machine(settings, tmp_path / "quick") as quick:
        assert slow.offer(first) is None
        assert quick.offer(second) is None
        assert quick.flush(10)
        if end == "reward":
            reward(services, project_id)
        time.sleep(ENOUGH_SECONDS)
        assert [run.state for run in rows(services, Run)] != ["closed"]
        slow.start()
        [trajectory] = until(lambda: rows(services, Trajectory))
    assert [m["weight"] for m in trajectory.messages if m["role"] == "assistant"] == [1, 1]
    [run] = rows(services, Run)
    assert (run.close_reason, trajectory.reward) == (end, 0.5 if end == "reward" else None)
    assert rows(services, LiveRecorder) == [], "both have ended with nothing left"


def test_runs_stay_whole_where_recorders_do_not_keep_up(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run's answers wait in three processes, for longer than the silence that ends it."""
    from api.recording import moving

    real = moving.record_calls

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return real(*args, **options)

    monkeypatch.setattr(moving, "record_calls", slow)
    monkeypatch.setattr(moving, "MOST_AT_ONCE", 4)
    runs, turns = 24, 4
    with ExitStack() as stack:
        recorders = [stack.enter_context(machine(settings, tmp_path / str(n))) for n in range(3)]
        conversations: list[list[Any]] = [[{"role": "user", "content": f"run {n}"}] for n in range(runs)]
        for turn, run in itertools.product(range(turns), range(runs)):
            call = call_of(project_id, list(conversations[run]), f"{turn}", f"s{run}" if run % 2 else None)
            ends = run % 3 == 0 and turn == turns - 1
            assert recorders[(run + turn) % 3].offer(replace(call, idle_seconds=1.5, ends_run=ends)) is None
            conversations[run] += [{"role": "assistant", "content": f"{turn}"}, {"role": "user", "content": "on"}]
        behind = 0.0
        while len(rows(services, RunCall)) < runs * turns or any(r.state != "closed" for r in rows(services, Run)):
            with transaction(services.sessions) as session:
                behind = max(behind, seconds_behind(session))
            time.sleep(0.1)
        assert behind > 1.5, "else it shows nothing"
    weights = [[m["weight"] for m in t.messages if m["role"] == "assistant"] for t in rows(services, Trajectory)]
    assert weights == [[1] * turns] * runs


def test_a_dead_recorder_is_waited_for_until_it_is_taken_over(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path
) -> None:
    second, first = two_turns(project_id, "idle")
    with machine(settings, tmp_path / "one", is_started=False) as dead:
        assert dead.offer(first) is None
    [left] = rows(services, LiveRecorder)
    with machine(settings, tmp_path / "two") as other:
        assert other.offer(second) is None
        assert other.flush(10)
        time.sleep(ENOUGH_SECONDS)
        assert [run.state for run in rows(services, Run)] == ["open"]
        with machine(settings, tmp_path / "one"):
            [trajectory] = until(lambda: rows(services, Trajectory))
        assert left.name not in {row.name for row in rows(services, LiveRecorder)}
    assert [m["weight"] for m in trajectory.messages if m["role"] == "assistant"] == [1, 1]


def test_a_reward_that_finds_no_run_yet_ends_and_rewards_it(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path
) -> None:
    second, first = two_turns(project_id, "reward")
    with machine(settings, tmp_path / "slow", is_started=False) as slow:
        for call in (first, second):
            assert slow.offer(call) is None
        reward(services, project_id)
        assert rows(services, Run) == []
        slow.start()
        [trajectory] = until(lambda: rows(services, Trajectory))
    assert [(run.close_reason, run.calls) for run in rows(services, Run)] == [("reward", 2)]
    assert trajectory.reward == 0.5


@pytest.mark.parametrize("is_exposed", [True, False])
def test_a_second_reward_goes_to_answers_that_wait_in_another_process(
    settings: Settings, services: Services, project_id: uuid.UUID, tmp_path: Path, is_exposed: bool
) -> None:
    """That something is new is known by the exposures of answers, at once. What is traced has none."""
    before, newest = (call_of(project_id, [{"role": "user", "content": text}], "ho", "s") for text in ("one", "two"))

    def give(value: float) -> bool:
        with transaction(services.sessions) as session:
            rating = Rating(value, "key test", "environment")
            return receive_session_feedback(session, project_id, "s", rating).is_new

    with machine(settings, tmp_path / "slow", is_started=False) as slow, machine(settings, tmp_path / "quick") as quick:
        assert quick.offer(before) is None
        assert quick.flush(10)
        assert give(0.5)
        now = utc_now()
        newest = replace(newest, requested_at=now, answered_at=now)
        assert slow.offer(newest) is None
        if is_exposed:
            with transaction(services.sessions) as session:
                session.add(Exposure(completion_id=newest.completion_id, project_id=project_id, session_id="s"))
        else:
            assert not give(0.5)
            with pytest.raises(FeedbackDiffers):
                give(0.75)
            slow.start()
            assert slow.flush(10)
        assert give(0.75)
        if is_exposed:
            assert not give(0.75)
            slow.start()
        trajectories = until(lambda: found if len(found := rows(services, Trajectory)) == 2 else [])
    assert {each.messages[0]["content"]: each.reward for each in trajectories} == {"one": 0.5, "two": 0.75}


def test_a_look_for_what_is_due_is_four_statements(settings: Settings) -> None:
    with recording(settings, is_started=False) as recorder:
        recorder._close_due()
        with record_queries(recorder._services.sessions.kw["bind"]) as sent:
            recorder._close_due()
    assert len(sent) == 4, sent


def test_others_know_of_a_recorder_before_it_takes_an_answer(
    settings: Settings, services: Services, project_id: uuid.UUID
) -> None:
    call = call_of(project_id, [{"role": "user", "content": "hi"}], "ho")
    late = replace(call, completion_id="late", answered_at=utc_now() - timedelta(minutes=1))
    with recording(settings, is_started=False) as recorder:
        assert recorder.offer(late) is None
        [row] = rows(services, LiveRecorder)
        recorder.start()
        assert recorder.flush(10)
        [run] = rows(services, Run)
    assert row.moved_until <= run.last_at
    assert utc_now() - run.last_at < timedelta(seconds=30), "others may have been told that it has moved all of before"


def test_the_oldest_answer_that_waits_says_how_far_all_is_moved(project_id: uuid.UUID) -> None:
    waiting, lines = WaitingCalls(), []
    calls = [call_of(project_id, [{"role": "user", "content": "hi"}], "ho") for _ in range(3)]
    late, *others = calls
    for call in others:
        waiting.take(call, lines.append)
    assert waiting.moved_until() == others[0].answered_at
    waiting.take(late, lines.append)
    assert RecordedCall.from_line(lines[-1]).answered_at > others[-1].answered_at, "it came after that was said"
    waiting.moved(1)
    assert waiting.moved_until() == others[1].answered_at
    assert not waiting.wait(0.01)
    waiting.moved(2)
    before = utc_now()
    assert before <= waiting.moved_until() <= utc_now()
    assert (waiting.wait(0.01), waiting.count(project_id)) == (True, 0)


def test_what_could_not_be_written_was_not_taken(project_id: uuid.UUID) -> None:
    waiting = WaitingCalls()

    def full(line: bytes) -> None:
        raise OSError(line)

    with pytest.raises(OSError, match="ho"):
        waiting.take(call_of(project_id, [{"role": "user", "content": "hi"}], "ho"), full)
    assert (waiting.wait(0.01), waiting.count(project_id)) == (True, 0)
