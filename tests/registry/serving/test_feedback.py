"""Feedback: attribution, repetition, and what counts; with concurrent callers."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.errors import CompletionNotFound, FeedbackDiffers, Invalid, InvalidName, RegistryError
from registry.models import Feedback, Project
from registry.serving.feedback import Rating, receive_feedback
from registry.serving.routes import Terms, route_history
from tests.registry.conftest import Rows, refused_as_immutable
from tests.registry.routed import Routed, make_routed


@pytest.fixture
def routed(rows: Rows) -> Routed:
    return make_routed(rows)


def test_feedback_goes_to_the_version_that_answered(routed: Routed) -> None:
    by_alias, by_number, bare = routed.ask(), routed.ask(model="bot@3"), routed.ask(model="base")
    routed.move_champion(2)
    received = [routed.rate(each, 1.0) for each in (by_alias, by_number, bare)]
    assert [r.exposure.version.number if r.exposure.version else None for r in received] == [1, 3, None]
    assert [r.feedback.version_id for r in received] == [r.exposure.version_id for r in received]
    assert not any(r.route or r.feedback.counted or r.outcome for r in received)


def test_repeated_feedback_changes_nothing_and_a_second_thought_is_refused(routed: Routed) -> None:
    routed.start_ab({1: 0.5, 2: 0.5})
    answer = routed.ask("anna")
    first, again = routed.rate(answer, 0.25), routed.rate(answer, 0.25)
    assert (first.is_new, again.is_new) == (True, False)
    assert first.feedback.seq == again.feedback.seq
    with pytest.raises(FeedbackDiffers, match=r"the reward 0\.25 already, which stands; got 1"):
        routed.rate(answer, 1.0)
    other = routed.rate(answer, 1.0, source="grader")
    assert (other.is_new, other.feedback.counted) == (True, False)
    assert sum(arm.sessions for arm in routed.results().arms) == 1
    assert sum(arm.feedback for arm in routed.results().arms) == 2


def test_of_each_session_the_first_feedback_counts(routed: Routed) -> None:
    routed.start_ab({1: 0.5, 2: 0.5})
    late, early = routed.ask("anna"), routed.ask("anna")
    assert routed.rate(early, 1.0).feedback.counted
    assert not routed.rate(late, 0.0).feedback.counted
    # Without a session each answer stands for itself.
    assert all(routed.rate(routed.ask(), 1.0).feedback.counted for _ in range(3))
    assert sum(arm.sessions for arm in routed.results().arms) == 4
    # Requests that name a version are no part of the experiment.
    assert not routed.rate(routed.ask("bert", model="bot@2"), 1.0).feedback.counted


def test_a_route_may_count_one_source_only(routed: Routed) -> None:
    routed.start_ab({1: 0.5, 2: 0.5}, terms=Terms(reward_source="grader"))
    answer = routed.ask("anna")
    assert not routed.rate(answer, 0.0).feedback.counted
    assert routed.rate(answer, 1.0, source="grader").feedback.counted
    assert [arm.mean for arm in routed.results().arms if arm.sessions] == [1.0]


def test_late_feedback_counts_for_the_route_that_has_ended(routed: Routed) -> None:
    routed.start_canary(2)
    answers = [routed.ask(f"s{number}") for number in range(12)]
    routed.end(1)
    received = [routed.rate(answer, 0.0) for answer in answers]
    assert all(r.feedback.counted and not r.outcome for r in received)
    assert {r.route.state for r in received if r.route} == {"ended"}
    assert sum(arm.sessions for arm in routed.results().arms) == 12


def test_an_ab_route_reports_and_does_not_stop(routed: Routed) -> None:
    routed.start_ab({1: 0.4, 2: 0.3, 3: 0.3})
    received = routed.rate_sessions(lambda label, number: 0.0 if label == "bot@2" else float(number % 2), 200)
    assert not any(each.outcome for each in received)
    control, two, three = routed.results().arms
    assert (control.version, control.difference) == (1, None)
    assert two.difference is not None
    assert three.difference is not None
    assert (two.difference.verdict, three.difference.verdict) == ("worse", "not yet")
    assert two.mean == 0.0
    assert three.interval.low < 0.5 < three.interval.high
    assert (two.sessions_needed, three.sessions_needed > 0) == (0, True)
    assert control.exposures + two.exposures + three.exposures == 200
    assert two.sessions + three.sessions + control.sessions == 200


def test_what_feedback_refuses(routed: Routed) -> None:
    answer = routed.ask()
    for reward in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(Invalid, match="reward"):
            routed.rate(answer, reward)
    with pytest.raises(InvalidName):
        routed.rate(answer, 1.0, source="A Person")
    for unknown in ("chatcmpl-nobody", "\0", "\ud800"):
        with pytest.raises(CompletionNotFound):
            routed.rate(unknown, 1.0)


def test_another_project_s_answer_is_unknown(routed: Routed) -> None:
    answer = routed.ask()
    with transaction(routed.rows.services.sessions) as session:
        other = Project(name="other")
        session.add(other)
        session.flush()
    with pytest.raises(CompletionNotFound), transaction(routed.rows.services.sessions) as session:
        receive_feedback(session, other.id, answer, Rating(1.0, "spy"))
    assert routed.rate(answer, 0.5).is_new


def test_feedback_and_exposures_can_not_be_changed(routed: Routed) -> None:
    routed.rate(routed.ask(), 1.0)
    for table, column in {"feedback": "reward", "exposures": "at"}.items():
        with (
            refused_as_immutable(table),
            transaction(routed.rows.services.sessions) as session,
        ):
            session.execute(sa.text(f"update {table} set {column} = {column}"))


def test_two_feedbacks_for_one_completion_at_once(routed: Routed) -> None:
    routed.start_canary(2)
    for number in range(3):
        answer = routed.ask(f"s{number}")
        plain = routed.ask(model="bot@1")

        def attempt(reward: float, answer: str = answer) -> object:
            try:
                return routed.rate(answer, reward).is_new
            except FeedbackDiffers:
                return "differs"

        with ThreadPoolExecutor(8) as pool:
            assert sorted(map(str, pool.map(attempt, [1.0] * 8))) == ["False"] * 7 + ["True"]
            on_plain = list(pool.map(lambda reward, answer=plain: attempt(reward, answer), [0.0, 1.0] * 4))
        assert on_plain.count(True) == 1
        assert on_plain.count("differs") == 4


def test_two_answers_of_one_session_rated_at_once_count_once(routed: Routed) -> None:
    routed.start_canary(2)
    for number in range(3):
        answers = [routed.ask(f"s{number}") for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            received = list(pool.map(lambda answer: routed.rate(answer, 1.0), answers))
        assert sum(each.feedback.counted for each in received) == 1


def test_feedback_while_the_route_is_ended_and_the_champion_moved(routed: Routed) -> None:
    """No deadlock, no lost feedback, one end."""
    for round_number in range(2):
        route = routed.start_canary(2)
        answers = [routed.ask(f"{round_number}-{number}") for number in range(40)]

        def rate(answer: str) -> None:
            routed.rate(answer, 1.0 if routed.answers[answer] == "bot@1" else 0.0)

        def end(way: int, number: int = route.number) -> bool:
            try:
                if way % 2:
                    routed.move_champion(1)
                else:
                    routed.end(number)
            except RegistryError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            rated = [pool.submit(rate, answer) for answer in answers]
            ended = [pool.submit(end, way) for way in range(4)]
            for each in (*rated, *ended):
                each.result()
        with transaction(routed.rows.services.sessions) as session:
            kinds = [change.kind for change in route_history(session, routed.route(route.number))]
            counted = session.scalar(sa.select(sa.func.count()).where(Feedback.route_id == route.id, Feedback.counted))
        assert (len(kinds), kinds[0], counted) == (2, "started", 40)
        assert routed.live() is None


def test_answers_do_not_wait_for_feedback(routed: Routed) -> None:
    """An exposure is recorded while another transaction holds the route's lock."""
    routed.start_canary(2)
    answer = routed.ask("anna")
    with transaction(routed.rows.services.sessions) as session:
        receive_feedback(session, routed.rows.project_id, answer, Rating(1.0, "slow"))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(routed.ask, "bert").result(timeout=60)
    assert uuid.UUID(answer.removeprefix("chatcmpl-"))
