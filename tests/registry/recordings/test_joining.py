"""Which calls become one run, in the real database: as agents send them, in every order and twice."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from registry.clock import utc_now
from registry.database import transaction
from registry.models import Run, RunCall, RunTurn, Trajectory
from registry.recordings.call import RecordedCall, SampledAnswer
from registry.recordings.closing import bring_back, close_due, due_projects
from registry.recordings.ending import request_close
from registry.recordings.joining import Joined, record_calls
from registry.tasks import create_task
from registry.trajectories.imports import TokenLimit
from registry.wiring import Services

Messages = list[dict[str, Any]]
TOKENS = TokenLimit(count=lambda messages, tools: 10, max_tokens=1000)
SAMPLED = SampledAnswer("tiny@r1", [1, 2, 3], [4, 5, 0], [-0.5, -0.25, -0.125], None, {"temperature": 1.0})
TOOLS: list[Any] = [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


class Agent:
    """Sends requests of one key, one second after another."""

    def __init__(self, services: Services, project_id: uuid.UUID) -> None:
        self.services, self.project_id, self.key_id = services, project_id, uuid.uuid4()
        self.now: datetime = utc_now() - timedelta(hours=1)

    def call(self, messages: Messages, answer: str | dict[str, Any], **options: Any) -> RecordedCall:
        """A call that was answered and not yet recorded."""
        self.now += timedelta(seconds=1)
        made = RecordedCall(
            completion_id=f"chatcmpl-{uuid.uuid4().hex}",
            project_id=self.project_id,
            key_id=self.key_id,
            task="t",
            model="base",
            messages=messages,
            tools=options.pop("tools", None),
            answer=said(answer) if isinstance(answer, str) else answer,
            finish_reason="stop",
            requested_at=self.now,
            answered_at=self.now + timedelta(seconds=0.5),
            sampled=SAMPLED,
        )
        return replace(made, **options)

    def record(self, *calls: RecordedCall, most_bytes: int = 1_000_000) -> list[Joined]:
        with transaction(self.services.sessions) as session:
            return record_calls(session, calls, most_bytes=most_bytes)

    def send(self, messages: Messages, answer: str | dict[str, Any], **options: Any) -> uuid.UUID:
        [joined] = self.record(self.call(messages, answer, **options))
        assert joined.run_id is not None, joined
        return joined.run_id

    def turns(self, run_id: uuid.UUID) -> list[tuple[str, str]]:
        """(kind, content) of each assistant turn."""
        with transaction(self.services.sessions) as session:
            rows = session.scalars(select(RunTurn).where(RunTurn.run_id == run_id).order_by(RunTurn.place))
            return [(row.kind, row.messages[-1]["content"]) for row in rows]

    def close(self, after: timedelta = timedelta(days=1)) -> list[Trajectory]:
        """All trajectories, once what is due is closed."""
        with transaction(self.services.sessions) as session:
            bring_back(session, utc_now())
            until = utc_now() + after
            for project_id in due_projects(session, until):
                while close_due(session, project_id, TOKENS, until=until):
                    pass
            return list(session.scalars(select(Trajectory).order_by(Trajectory.seq)))

    def run(self, run_id: uuid.UUID) -> Run:
        with transaction(self.services.sessions) as session:
            return session.get_one(Run, run_id)


@pytest.fixture
def agent(services: Services, project_id: uuid.UUID) -> Iterator[Agent]:
    with transaction(services.sessions) as session:
        for task in ("t", "u"):
            create_task(session, project_id, task, grader={"kind": "exact"}, holdout_share=0.5)
    yield Agent(services, project_id)  # noqa: PT022 - as the others


def weights(trajectory: Trajectory) -> list[int | None]:
    return [message.get("weight") for message in trajectory.messages]


def test_a_request_that_goes_on_joins(agent: Agent) -> None:
    first = agent.send([user("a")], "1")
    assert agent.send([user("a"), said("1"), user("b")], "2") == first
    assert agent.send([user("a"), said("1"), user("b"), said("2"), user("c")], "3") == first
    [trajectory] = agent.close()
    assert [message["content"] for message in trajectory.messages] == ["a", "1", "b", "2", "c", "3"]
    assert weights(trajectory) == [None, 1, None, 1, None, 1]
    assert (trajectory.adapter_version, trajectory.trajectory_id) == ("base", str(first))
    assert trajectory.sampled is not None
    assert [entry["prompt_kept"] for entry in trajectory.sampled] == [0, 3, 3]
    assert agent.run(first).close_reason == "idle"


def test_the_same_question_again_is_another_run(agent: Agent) -> None:
    """A retry, or the next of many samples: nothing is deduplicated."""
    runs = {agent.send([user("a")], "1") for _ in range(3)}
    assert len(runs) == 3
    assert [trajectory.messages[1]["content"] for trajectory in agent.close()] == ["1", "1", "1"]


def test_equal_runs_side_by_side_stay_apart(agent: Agent) -> None:
    runs = {agent.send([user("a")], "1") for _ in range(3)}
    assert {agent.send([user("a"), said("1"), user("b")], "2") for _ in range(3)} == runs


def test_a_branch_is_a_run_of_its_own(agent: Agent) -> None:
    first = agent.send([user("a")], "1")
    agent.send([user("a"), said("1"), user("b")], "2")
    branch = agent.send([user("a"), said("1"), user("other")], "3")
    assert branch != first
    assert agent.turns(branch) == [("copied", "1"), ("own", "3")]
    assert agent.run(branch).branch_of == first
    assert [weights(trajectory) for trajectory in agent.close()] == [[None, 1, None, 1], [None, 0, None, 1]]


def test_several_choices_are_branches(agent: Agent) -> None:
    first = agent.send([user("a")], "1")
    asked = [user("a"), said("1"), user("b")]
    call = agent.call(asked, "2")
    joined = agent.record(call, replace(call, choice=1, answer=said("3"), run_id=uuid.uuid4()))
    assert joined[0].run_id == first != joined[1].run_id
    assert agent.turns(joined[1].run_id or first) == [("copied", "1"), ("own", "3")]
    assert agent.send([*asked, said("3"), user("c")], "4") == joined[1].run_id


def test_a_second_choice_that_comes_first_leaves_the_run_to_the_first(agent: Agent) -> None:
    """They are written side by side: any may be the first line of the spool."""
    first = agent.send([user("a")], "1")
    call = agent.call([user("a"), said("1"), user("b")], "2", run_id=first)
    second = replace(call, choice=1, answer=said("3"), run_id=uuid.uuid4())
    assert [each.run_id for each in agent.record(second, call)] == [second.run_id, first]
    assert agent.run(second.run_id).branch_of == first


def test_of_equal_runs_the_one_goes_on_that_the_answer_names(agent: Agent) -> None:
    one, two = (agent.send([user("a")], "1") for _ in range(2))
    assert agent.send([user("a"), said("1"), user("b")], "2", run_id=two) == two
    assert agent.send([user("a"), said("1"), user("b")], "2", run_id=one) == one


def test_a_retry_does_not_go_on_in_an_equal_run_that_is_not_so_far(agent: Agent) -> None:
    one, two = (agent.send([user("a")], "1") for _ in range(2))
    asked = [user("a"), said("1"), user("b")]
    assert agent.send(asked, "2") == one
    asked = [*asked, said("2"), user("c")]
    assert agent.send(asked, "3") == one
    retry = agent.send(asked, "4")
    assert retry not in (one, two)
    assert agent.turns(retry) == [("copied", "1"), ("copied", "2"), ("own", "4")]
    assert agent.send([user("a"), said("1"), user("d")], "5") == two


def test_what_a_request_puts_into_the_assistant_s_mouth_is_context(agent: Agent) -> None:
    run = agent.send([user("a"), said("I would")], "go.")
    assert agent.send([user("a"), said("I would"), said("go."), user("b")], "2") == run
    [trajectory] = agent.close()
    assert weights(trajectory) == [None, 0, 1, None, 1]
    assert [entry is None for entry in trajectory.sampled or ()] == [True, False, False]


def test_a_late_call_with_other_tools_has_no_place_in_the_run(agent: Agent) -> None:
    """One agent hands the conversation to another, whose process is the quicker one."""
    first = agent.call([user("a")], "1", session_id="s", tools=TOOLS)
    other = agent.send([user("a"), said("1"), user("b")], "2", session_id="s", tools=[*TOOLS, *TOOLS])
    assert agent.record(first)[0].run_id != other
    assert agent.turns(other) == [("foreign", "1"), ("own", "2")]


@pytest.mark.parametrize(
    "history",
    [
        [user("A"), said("1")],
        [user("a"), said("one")],
        [said("1")],
        [{"role": "system", "content": "new"}, user("a"), said("1")],
        [user("a"), said("1"), user("b"), said("edited")],
    ],
)
def test_an_edited_history_is_a_run_of_its_own(agent: Agent, history: Messages) -> None:
    first = agent.send([user("a")], "1")
    assert agent.send([user("a"), said("1"), user("b")], "2") == first
    other = agent.send([*history, user("c")], "3")
    assert other != first
    kinds = [kind for kind, _ in agent.turns(other)]
    assert kinds[-1] == "own"
    assert "own" not in kinds[:-1]


def test_what_another_model_said_between_is_context(agent: Agent) -> None:
    first = agent.send([user("a")], "1")
    assert agent.send([user("a"), said("1"), user("b"), said("elsewhere"), user("c")], "3") == first
    [trajectory] = agent.close()
    assert weights(trajectory) == [None, 1, None, 0, None, 1]
    assert [entry is None for entry in trajectory.sampled or ()] == [False, True, False]


def test_sessions_keys_tasks_and_tools_keep_runs_apart(agent: Agent, services: Services, project_id: uuid.UUID) -> None:
    follow = [user("a"), said("1"), user("b")]
    first = agent.send([user("a")], "1", session_id="s", tools=TOOLS)
    others = [
        agent.send(follow, "2", tools=TOOLS),
        agent.send(follow, "2", tools=TOOLS, session_id="r"),
        agent.send(follow, "2", tools=TOOLS, session_id="s", task="u"),
        agent.send(follow, "2", tools=[*TOOLS, *TOOLS], session_id="s"),
        Agent(services, project_id).send(follow, "2", tools=TOOLS),
    ]
    assert len({first, *others}) == 6
    assert agent.send(follow, "2", session_id="s") == first, "no tools are no other tools"


CALL: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "go", "arguments": '{"to": 1.0}'}}


def test_calls_that_a_client_spelled_anew(agent: Agent) -> None:
    answer = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"}
    first = agent.send([user("a")], answer, tools=TOOLS, finish_reason="tool_calls")
    echo = {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "go", "arguments": '{"to":1}'}}]}
    result = {"role": "tool", "tool_call_id": "x", "content": "there"}
    assert agent.send([user("a"), echo, result], "2", tools=TOOLS) == first
    [trajectory] = agent.close()
    assert agent.run(first).refusal_reason is None
    called = trajectory.messages[1]
    assert called["reasoning_content"] == "hm"
    assert called["tool_calls"] == [{**CALL, "id": "x"}], "as it was given, with the id that its result names"
    assert "not_learned" not in trajectory.details["recorded"]


def test_a_call_is_recorded_once(agent: Agent) -> None:
    call = agent.call([user("a")], "1")
    assert [each.outcome for each in agent.record(call, call)] == ["recorded", "again"]
    assert [each.outcome for each in agent.record(call)] == ["again"]
    agent.close()
    assert [each.outcome for each in agent.record(call)] == ["again"]


def test_calls_that_come_late_take_their_places(agent: Agent) -> None:
    """Three requests of one session, answered by two replicas in turn; the first's spool is the slower one."""
    one = agent.call([user("a")], "1", session_id="s")
    two = agent.call([user("a"), said("1"), user("b")], "2", session_id="s")
    three = agent.call([user("a"), said("1"), user("b"), said("2"), user("c")], "3", session_id="s")
    [joined] = agent.record(three)
    assert [each.run_id for each in agent.record(one, two)] == [joined.run_id] * 2
    assert agent.turns(joined.run_id or uuid.uuid4()) == [("own", "1"), ("own", "2"), ("own", "3")]
    [trajectory] = agent.close()
    assert weights(trajectory) == [None, 1, None, 1, None, 1]
    assert all(trajectory.sampled or ())


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1)])
def test_any_order_makes_the_same_run(agent: Agent, order: tuple[int, ...]) -> None:
    calls = [
        agent.call([user("a")], "1", session_id="s"),
        agent.call([user("a"), said("1"), user("b")], "2", session_id="s"),
        agent.call([user("a"), said("1"), user("b"), said("2"), user("c")], "3", session_id="s"),
    ]
    for place in order:
        agent.record(calls[place])
    [trajectory] = agent.close()
    assert weights(trajectory) == [None, 1, None, 1, None, 1]


def test_a_later_equal_answer_is_no_late_one(agent: Agent) -> None:
    """The history of an edited run holds an answer that is given again afterwards, to a retry."""
    foreign = agent.send([user("a"), said("1"), user("b")], "2")
    assert agent.turns(foreign)[0] == ("foreign", "1")
    agent.now += timedelta(seconds=10)
    assert agent.send([user("a")], "1") != foreign
    assert agent.turns(foreign)[0] == ("foreign", "1")


def test_what_tracing_tells_takes_its_place_however_late_it_comes(agent: Agent) -> None:
    """An exporter tries again after a minute, and its calls have the time at which they come."""
    late = agent.call([user("a")], "1", in_any_order=True)
    foreign = agent.send([user("a"), said("1"), user("b")], "2", in_any_order=True)
    agent.now += timedelta(minutes=1)
    [joined] = agent.record(replace(late, requested_at=agent.now, answered_at=agent.now))
    assert (joined.run_id, agent.turns(foreign)) == (foreign, [("own", "1"), ("own", "2")])


def test_a_closed_run_is_not_gone_on_with(agent: Agent) -> None:
    first = agent.send([user("a")], "1")
    agent.close()
    second = agent.send([user("a"), said("1"), user("b")], "2")
    assert second != first
    assert [weights(each) for each in agent.close()] == [[None, 1], [None, 0, None, 1]]


def test_the_header_closes_a_run(agent: Agent) -> None:
    first = agent.send([user("a")], "1", session_id="s")
    assert agent.send([user("a"), said("1"), user("b")], "2", session_id="s", ends_run=True) == first
    assert agent.run(first).state == "closing"
    assert agent.close(timedelta(0)) != [], "the hour has passed"
    assert agent.run(first).close_reason == "header"


def test_a_reward_closes_a_session_and_what_was_answered_before_still_joins(agent: Agent) -> None:
    one = agent.call([user("a")], "1", session_id="s")
    two = agent.call([user("a"), said("1"), user("b")], "2", session_id="s")
    [joined] = agent.record(one)
    with transaction(agent.services.sessions) as session:
        assert request_close(session, agent.project_id, session_id="s") == [joined.run_id]
    assert agent.close(timedelta(0)) == [], "a slower replica may have more"
    assert agent.record(two) == [joined]
    later = agent.call([user("a"), said("1"), user("b"), said("2"), user("c")], "3", session_id="s")
    moved = replace(later, requested_at=utc_now(), answered_at=utc_now() + timedelta(seconds=5))
    assert agent.record(moved)[0].run_id != joined.run_id
    assert weights(agent.close()[0]) == [None, 1, None, 1]
    assert agent.run(joined.run_id or uuid.uuid4()).close_reason == "reward"


def test_a_run_that_grows_too_large_is_closed(agent: Agent) -> None:
    [joined] = agent.record(agent.call([user("a" * 300)], "1"), most_bytes=400)
    assert joined.outcome == "recorded"
    follow = agent.call([user("a" * 300), said("1"), user("b" * 300)], "2")
    assert [each.outcome for each in agent.record(follow, most_bytes=400)] == ["too_large"]


def test_an_unknown_task_is_told(agent: Agent) -> None:
    assert agent.record(agent.call([user("a")], "1", task="gone"))[0].outcome == "task_unknown"


def test_turns_that_words_can_not_teach_are_context(agent: Agent) -> None:
    unknown = {**CALL, "function": {"name": "fly", "arguments": "{}"}}
    first = agent.send([user("a")], {"role": "assistant", "content": None, "tool_calls": [unknown]}, tools=TOOLS)
    told: Messages = [user("a"), {"role": "assistant", "content": None, "tool_calls": [unknown]}]
    told += [{"role": "tool", "tool_call_id": "call_1", "content": "no such tool"}]
    assert agent.send(told, "", tools=TOOLS) == first
    told += [said(""), user("go on")]
    assert agent.send(told, "cut", tools=TOOLS, finish_reason="length") == first
    told += [said("cut"), user("and?")]
    assert agent.send(told, "filtered", tools=TOOLS, finish_reason="CONTENT_FILTER") == first
    told += [said("filtered"), user("and?")]
    assert agent.send(told, "whole", tools=TOOLS) == first
    [trajectory] = agent.close()
    assert weights(trajectory) == [None, 0, None, 0, None, 0, None, 0, None, 1]
    codes = [each["code"] for each in trajectory.details["recorded"]["not_learned"]]
    assert codes == ["tool_call_undeclared", "assistant_empty", "cut_off", "cut_off"]
    assert all(trajectory.sampled or ()), "their tokens are kept as they were sampled"


def test_a_run_that_teaches_nothing_is_refused_and_stays(agent: Agent) -> None:
    first = agent.send([user("a")], "")
    assert agent.close() == []
    run = agent.run(first)
    assert (run.state, run.refusal_code) == ("closed", "nothing_to_learn")
    assert agent.turns(first) == [("own", "")]


def test_a_trajectory_takes_its_run_with_it_and_no_spool_brings_it_back(agent: Agent) -> None:
    call = agent.call([user("a")], "1")
    agent.record(call)
    [trajectory] = agent.close()
    with transaction(agent.services.sessions) as session:
        session.delete(session.get_one(Trajectory, trajectory.id))
    with transaction(agent.services.sessions) as session:
        assert session.scalars(select(Run)).all() == []
        assert [row.run_id for row in session.scalars(select(RunCall))] == [None]
    assert [each.outcome for each in agent.record(call)] == ["again"]


def test_a_run_of_a_clock_that_was_set_back_is_closed_all_the_same(agent: Agent) -> None:
    idle, ended = (agent.send([user(text)], "1") for text in ("a", "b"))
    with transaction(agent.services.sessions) as session:
        ahead = utc_now() + timedelta(days=1)
        session.execute(update(Run).values(last_at=ahead))
        session.execute(update(Run).where(Run.id == ended).values(state="closing", closing_at=ahead))
    assert agent.close(after=timedelta(0)) == [], "as if they were answered now"
    assert len(agent.close(after=timedelta(hours=12))) == 2
    assert {agent.run(each).state for each in (idle, ended)} == {"closed"}
