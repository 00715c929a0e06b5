"""The recorder under load, with replicas, and with processes that are killed: nothing lost, nothing doubled."""

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from api.recording.recorder import Recorder
from registry.clock import utc_now
from registry.database import transaction
from registry.models import LiveRecorder, RecordingCount, Run, RunCall, Trajectory
from registry.recordings.call import RecordedCall, SampledAnswer
from registry.recordings.ending import request_close
from registry.recordings.joining import kind_of
from registry.recordings.open_points import OpenPoint, RunKind
from registry.settings import Settings
from registry.tasks import create_task
from registry.trajectories.imports import TokenLimit
from registry.wiring import Services, open_services
from tests.api.recording.test_recording import rows, until

TOKENS = TokenLimit(count=lambda messages, tools: 10, max_tokens=1000)
SAMPLED = SampledAnswer("tiny@r1", list(range(50)), [4, 5, 0], [-0.5, -0.25, -0.125], None, {"temperature": 1.0})


@contextmanager
def recording(settings: Settings, *, is_started: bool = True) -> Iterator[Recorder]:
    with open_services(settings) as services:
        recorder = Recorder(services, lambda: TOKENS)
        if is_started:
            recorder.start()
        try:
            yield recorder
        finally:
            recorder.stop()


@pytest.fixture
def task(services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        create_task(session, project_id, "t", grader={"kind": "exact"}, holdout_share=0.5)


KEY = uuid.uuid4()
TOOLS: list[Any] = [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}]


def call_of(project_id: uuid.UUID, messages: list[Any], answer: str, session_id: str | None = None) -> RecordedCall:
    now = utc_now()
    return RecordedCall(
        completion_id=f"chatcmpl-{uuid.uuid4().hex}",
        project_id=project_id,
        key_id=KEY,
        task="t",
        model="base",
        messages=messages,
        tools=None,
        answer={"role": "assistant", "content": answer},
        finish_reason="stop",
        requested_at=now,
        answered_at=now,
        session_id=session_id,
        sampled=SAMPLED,
    )


def play(offers: Iterator[Recorder], project_id: uuid.UUID, run: int, turns: int, session_id: str | None) -> None:
    """An agent's run, each turn answered by the next replica."""
    messages: list[Any] = [{"role": "user", "content": f"run {run}"}]
    for turn in range(turns):
        answer = f"{run}/{turn}"
        assert next(offers).offer(call_of(project_id, messages, answer, session_id)) is None
        messages = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": f"turn {turn}"}]


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.usefixtures("task")
def test_runs_at_full_load_are_neither_lost_nor_doubled(
    settings: Settings, services: Services, project_id: uuid.UUID, replicas: int
) -> None:
    runs, turns = 60, 5
    with ExitStack() as stack:
        recorders = [stack.enter_context(recording(settings)) for _ in range(replicas)]

        def work(first: int) -> None:
            for run in range(first, runs, 4):
                offers = itertools.cycle(recorders)
                play(offers, project_id, run, turns, f"s{run}" if run % 2 else None)

        agents = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.join()
        assert all(recorder.flush(60) for recorder in recorders)
        found = rows(services, Run)
        assert Counter(run.calls for run in found) == {turns: runs}
        assert len(rows(services, RunCall)) == runs * turns
        with transaction(services.sessions) as session:
            for run in found:
                request_close(session, project_id, run_id=run.id)
        trajectories = until(lambda: found if len(found := rows(services, Trajectory)) == runs else [], 60)
        for trajectory in trajectories:
            assert [m["weight"] for m in trajectory.messages if m["role"] == "assistant"] == [1] * turns
            assert all(trajectory.sampled or ())
        counts = until(lambda: {r.outcome: r.count for r in rows(services, RecordingCount)})
        assert set(counts) == {"recorded"}


@pytest.mark.usefixtures("task")
def test_what_a_dead_process_left_is_taken_over(settings: Settings, services: Services, project_id: uuid.UUID) -> None:
    call = call_of(project_id, [{"role": "user", "content": "hi"}], "ho")
    with recording(settings, is_started=False) as dead:
        assert dead.offer(call) is None
    assert rows(services, Run) == []
    with recording(settings):
        [run] = until(lambda: rows(services, Run))
    assert run.calls == 1
    assert list(settings.spool_dir.iterdir()) == []


@pytest.mark.usefixtures("task")
def test_a_line_that_is_moved_twice_is_recorded_once(
    settings: Settings, services: Services, project_id: uuid.UUID
) -> None:
    """As it is when a process dies between the commit and the removal of the line."""
    call = call_of(project_id, [{"role": "user", "content": "hi"}], "ho")
    with recording(settings) as recorder:
        recorder.offer(call)
        recorder.offer(replace(call, run_id=uuid.uuid4()))
        assert recorder.flush(10)
        assert [(row.outcome, row.count) for row in rows(services, RecordingCount)] == [("recorded", 1)], "at once"
    assert [run.calls for run in rows(services, Run)] == [1]


@pytest.mark.usefixtures("task")
def test_one_bad_call_does_not_hold_up_the_others(
    settings: Settings, services: Services, project_id: uuid.UUID
) -> None:
    good = call_of(project_id, [{"role": "user", "content": "hi \x00 \ud83d"}], "ho")
    bad = replace(call_of(project_id, [{"role": "user", "content": "hi"}], "ho"), model="a\x00b")
    homeless = call_of(uuid.uuid4(), [{"role": "user", "content": "hi"}], "ho")
    with recording(settings) as recorder:
        for call in (bad, homeless, good):
            assert recorder.offer(call) is None
        assert recorder.flush(10)
    counts = {row.outcome: row.count for row in rows(services, RecordingCount)}
    assert counts == {"recorded": 1, "unreadable": 1}


def test_what_does_not_fit_is_told_and_counted(settings: Settings, services: Services, project_id: uuid.UUID) -> None:
    small = settings.model_copy(update={"spool_bytes": 100})
    with recording(small) as recorder:
        assert recorder.offer(call_of(project_id, [{"role": "user", "content": "hi"}], "ho")) == "spool_full"
        counts = until(lambda: {r.outcome: r.count for r in rows(services, RecordingCount)})
    assert counts == {"spool_full": 1}


@pytest.mark.usefixtures("task")
def test_while_the_database_is_away_answers_wait(
    settings: Settings, services: Services, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.recording import moving
    from api.recording import recorder as module

    away = threading.Event()
    real = moving.record_calls

    def unreachable(*args: Any, **options: Any) -> Any:
        if not away.is_set():
            raise sa.exc.OperationalError("select", {}, Exception("gone"))
        return real(*args, **options)

    monkeypatch.setattr(moving, "record_calls", unreachable)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.1)
    with recording(settings) as recorder:
        until(lambda: rows(services, LiveRecorder))
        began = time.perf_counter()
        assert recorder.offer(call_of(project_id, [{"role": "user", "content": "hi"}], "ho")) is None
        assert time.perf_counter() - began < 5, "it waits for no database: that is away until the test brings it back"
        assert not recorder.flush(0.3)
        assert recorder.waiting(project_id) == 1
        away.set()
        assert recorder.flush(10)
        assert recorder.waiting(project_id) == 0
    assert [run.calls for run in rows(services, Run)] == [1]


@pytest.mark.usefixtures("task")
def test_what_is_moved_again_waited_once(
    settings: Settings, services: Services, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has calls of several scopes, and the database goes away between them."""
    from api.recording import moving
    from api.recording import recorder as module

    real, failures = moving.record_calls, iter([False, True])

    def unreliable(*args: Any, **options: Any) -> Any:
        if next(failures, False):
            raise sa.exc.OperationalError("select", {}, Exception("gone"))
        return real(*args, **options)

    monkeypatch.setattr(moving, "record_calls", unreliable)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.05)
    with recording(settings, is_started=False) as recorder:
        for name in "ab":
            recorder.offer(call_of(project_id, [{"role": "user", "content": "hi"}], "ho", name))
        recorder.start()
        assert recorder.flush(10)
        assert recorder.waiting(project_id) == 0


@pytest.mark.usefixtures("task")
def test_what_the_database_never_takes_holds_up_nothing(
    settings: Settings, services: Services, project_id: uuid.UUID
) -> None:
    """PostgreSQL's limits come as errors of its operation, as a broken connection does."""
    hi = [{"role": "user", "content": "hi"}]
    noise = "".join(chr(0x4E00 + place * 7919 % 20_000) for place in range(20_000))  # a key that no index holds
    with recording(settings) as recorder:
        recorder.offer(call_of(project_id, hi, "ho", noise))
        recorder.offer(call_of(project_id, hi, "ho"))
        assert recorder.flush(10)
    counts = {row.outcome: row.count for row in rows(services, RecordingCount)}
    assert counts == {"recorded": 1, "unreadable": 1}


def kind_of_runs(project_id: uuid.UUID, tools: list[Any] | None = None) -> RunKind:
    return kind_of(replace(call_of(project_id, [], ""), tools=tools))


class Told:
    """An agent without a session, and the runs that its answers named."""

    def __init__(self, recorder: Recorder, project_id: uuid.UUID) -> None:
        self.recorder, self.project_id = recorder, project_id
        self.runs: dict[str, uuid.UUID] = {}

    def begin(self, *words: str, tools: list[Any] | None = None) -> tuple[list[Any], OpenPoint | None]:
        """A request with these messages, by user and assistant in turn, while its answer is made."""
        messages = [{"role": ("user", "assistant")[n % 2], "content": word} for n, word in enumerate(words)]
        return messages, self.recorder.find_point(kind_of_runs(self.project_id, tools), messages)

    def end(self, begun: tuple[list[Any], OpenPoint | None], answer: str, **options: Any) -> uuid.UUID:
        """The run that the answer named."""
        messages, point = begun
        call = replace(call_of(self.project_id, messages, answer), run_id=self.recorder.name_run(point), **options)
        assert self.recorder.offer_announced(call) is None
        self.runs[call.completion_id] = call.run_id
        return call.run_id

    def stand(self) -> dict[str, uuid.UUID | None]:
        """The run in which each answer stands."""
        assert self.recorder.flush(10)
        with transaction(self.recorder._services.sessions) as session:
            return {call.completion_id: call.run_id for call in session.scalars(sa.select(RunCall))}


@pytest.mark.parametrize("is_moved", [True, False])
@pytest.mark.usefixtures("task")
def test_answers_name_the_runs_that_they_stand_in(settings: Settings, project_id: uuid.UUID, is_moved: bool) -> None:
    """Equal runs side by side, retries, branches, ended runs and other tools: as the next request meets them, whether
    the recorder was quick or not."""
    with recording(settings, is_started=is_moved) as recorder:
        told = Told(recorder, project_id)

        def end(begun: tuple[list[Any], OpenPoint | None], answer: str, **options: Any) -> uuid.UUID:
            named = told.end(begun, answer, **options)
            if is_moved:
                assert recorder.flush(10)
            return named

        equal = {end(told.begin("a"), "1") for _ in range(2)}
        side_by_side = [told.begin("a", "1", "b") for _ in range(2)]
        assert {end(begun, "2") for begun in side_by_side} == equal
        retry = end(told.begin("a", "1", "b"), "3")
        assert retry not in equal
        last = end(told.begin("a", "1", "b", "3", "c"), "4", ends_run=True)
        assert last == retry
        after = end(told.begin("a", "1", "b", "3", "c", "4", "d", tools=TOOLS), "5", tools=TOOLS)
        assert after != retry
        more = [*TOOLS, *TOOLS]
        other = end(told.begin("a", "1", "b", "3", "c", "4", "d", "5", "e", tools=more), "6", tools=more)
        assert len({*equal, retry, after, other}) == 5
        if not is_moved:
            recorder.start()
        assert told.stand() == told.runs
