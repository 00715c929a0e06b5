"""The clock that runs end by: how far all recorders are, and not what time it is."""

import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry.clock import utc_now
from registry.database import transaction
from registry.models import LiveRecorder, Run
from registry.recordings.closing import close_due, due_projects
from registry.recordings.counts import list_counts
from registry.recordings.ending import end_rewarded, request_close
from registry.recordings.recorders import (
    LOST,
    LOST_AFTER,
    all_moved_until,
    count_stuck,
    forget_lost,
    remove_recorder,
    say_moved,
    seconds_behind,
    speak_for,
)
from registry.serving.feedback import Rating
from registry.serving.run_feedback import receive_run_feedback, receive_session_feedback
from registry.wiring import Services
from tests.registry.recordings.test_joining import TOKENS, Agent, agent, user

__all__ = ["agent"]

REWARD = Rating(1.0, "key test", "environment")


def say(services: Services, name: str, minutes_ago: float) -> None:
    with transaction(services.sessions) as session:
        say_moved(session, name, utc_now() - timedelta(minutes=minutes_ago))


def silence(services: Services, name: str) -> None:
    """As if nobody had spoken for a recorder for longer than is waited."""
    with transaction(services.sessions) as session:
        seen_at = utc_now() - LOST_AFTER - timedelta(seconds=5)
        session.execute(sa.update(LiveRecorder).where(LiveRecorder.name == name).values(seen_at=seen_at))


def is_due(services: Services, project_id: uuid.UUID) -> bool:
    """Whether a run is, where runs are looked for and where they are written."""
    with transaction(services.sessions) as session:
        found = due_projects(session) == [project_id]
        assert bool(close_due(session, project_id, TOKENS)) == found
        session.rollback()
        return found


@pytest.mark.parametrize("end", ["idle", "header", "reward"])
def test_a_run_ends_when_every_recorder_has_moved_what_was_answered_before(
    agent: Agent, services: Services, project_id: uuid.UUID, end: str
) -> None:
    run = agent.send([user("a")], "1", session_id="s", ends_run=end == "header")
    if end == "reward":
        with transaction(services.sessions) as session:
            assert request_close(session, project_id, run_id=run) == [run]
            session.get_one(Run, run).closing_at = agent.now
    say(services, "quick", 0)
    say(services, "slow", 61)
    assert not is_due(services, project_id)
    say(services, "slow", 0)
    assert is_due(services, project_id)


def test_a_silence_is_as_long_as_it_is_known_to_be(agent: Agent, services: Services, project_id: uuid.UUID) -> None:
    agent.send([user("a")], "1")  # an hour ago, and a quarter of an hour closes it
    say(services, "slow", 50)
    assert not is_due(services, project_id)
    say(services, "slow", 40)
    assert is_due(services, project_id)


def test_a_lost_recorder_is_waited_for_no_longer(agent: Agent, services: Services, project_id: uuid.UUID) -> None:
    agent.send([user("a")], "1")
    say(services, "lost", 61)
    say(services, "other", 0)
    with transaction(services.sessions) as session:
        assert forget_lost(session) == {}
    silence(services, "lost")
    assert is_due(services, project_id)
    with transaction(services.sessions) as session:
        assert forget_lost(session) == {"lost": 0}
        assert seconds_behind(session) < 60


def test_what_waited_in_a_lost_recorder_is_counted_once(services: Services, project_id: uuid.UUID) -> None:
    gone = uuid.uuid4()  # a project that was deleted meanwhile
    with transaction(services.sessions) as session:
        say_moved(session, "lost", utc_now(), waiting={project_id: 2, gone: 3})
        say_moved(session, "other", utc_now(), waiting={project_id: 1})
    silence(services, "lost")
    for found in ({"lost": 5}, {}):
        with transaction(services.sessions) as session:
            assert forget_lost(session) == found
            assert [(row.outcome, row.count) for row in list_counts(session, project_id)] == [(LOST, 2)]


def test_a_stuck_recorder_is_waited_for_once_it_moves_again(
    agent: Agent, services: Services, project_id: uuid.UUID
) -> None:
    agent.send([user("a")], "1")
    ago = utc_now() - timedelta(minutes=61)
    for name, is_stuck in (("one", True), ("one", False), ("two", True), ("two", False)):
        with transaction(services.sessions) as session:
            say_moved(session, name, ago, waiting={project_id: 4, uuid.uuid4(): 1}, is_stuck=is_stuck)
            assert count_stuck(session, project_id) == 4 * is_stuck
            assert (seconds_behind(session) > 3600) is not (is_stuck and name == "one")
        if name == "one":
            assert is_due(services, project_id) is is_stuck
    with transaction(services.sessions) as session:
        remove_recorder(session, "one")
        say_moved(session, "two", ago, is_stuck=True)
        speak_for(session, "two", ago)
    assert not is_due(services, project_id), "another process is taking it over"


def test_whoever_speaks_for_a_dead_recorder_has_it_waited_for(services: Services) -> None:
    say(services, "dead", 30)
    silence(services, "dead")
    with transaction(services.sessions) as session:
        assert utc_now() - all_moved_until(session) < timedelta(minutes=1)
        speak_for(session, "dead", utc_now())
        assert timedelta(minutes=29) < utc_now() - all_moved_until(session)
        assert 29 * 60 < seconds_behind(session) < 31 * 60
        speak_for(session, "forgotten", utc_now() - timedelta(minutes=40))
        assert timedelta(minutes=39) < utc_now() - all_moved_until(session), "it is waited for again"
        for name in ("dead", "forgotten"):
            remove_recorder(session, name)
        assert seconds_behind(session) == 0


@pytest.mark.parametrize("target", ["session", "run", "announced"])
def test_a_reward_that_comes_first_ends_the_run_once_it_is_known(
    agent: Agent, services: Services, project_id: uuid.UUID, target: str
) -> None:
    other, announced = agent.send([user("b")], "1", session_id="s"), uuid.uuid4()
    agent.now = utc_now() - timedelta(seconds=20)
    call = agent.call([user("a")], "1", session_id=None if target == "announced" else "s", run_id=announced)
    if target == "announced":  # the run has another id, as that one is taken
        call = agent.call([user("b"), {"role": "assistant", "content": "1"}, user("c")], "1", session_id="s")
        call = type(call)(**{**call.__dict__, "run_id": announced})
    with transaction(services.sessions) as session:
        if target == "session":
            receive_session_feedback(session, project_id, "s", REWARD)
        else:
            receive_run_feedback(session, project_id, announced, REWARD)
    [joined] = agent.record(call)
    assert joined.run_id == (other if target == "announced" else announced)
    assert agent.run(announced if target != "announced" else other).state == "open"
    with transaction(services.sessions) as session:
        assert end_rewarded(session) == [joined.run_id]
        assert end_rewarded(session) == []
    run = agent.run(joined.run_id or other)
    assert (run.state, run.close_reason) == ("closing", "reward")
    agent.close()
    with transaction(services.sessions) as session:
        run = session.get_one(Run, run.id)
        assert run.state == "closed"


def test_a_reward_of_before_a_run_s_last_answer_does_not_end_it(
    agent: Agent, services: Services, project_id: uuid.UUID
) -> None:
    with transaction(services.sessions) as session:
        receive_session_feedback(session, project_id, "s", REWARD)
    agent.now = utc_now() + timedelta(seconds=1)
    agent.send([user("a")], "1", session_id="s")
    with transaction(services.sessions) as session:
        assert end_rewarded(session) == []
