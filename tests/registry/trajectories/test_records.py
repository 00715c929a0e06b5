import json
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from registry.database import transaction
from registry.errors import InvalidName, InvalidTrajectory, NameTaken, TaskNotFound, TrajectoryNotFound
from registry.json_text import canonical_json, parse_json
from registry.models import Project
from registry.tasks import TaskCounts, count_trajectories, create_task, get_task, list_tasks
from registry.trajectories.formats import chat as chat_format
from registry.trajectories.imports import LineResult, TokenLimit, import_batch, read_item
from registry.trajectories.records import TrajectoryFilter, get_trajectory, list_trajectories
from registry.wiring import Services
from tests.trajectory_samples import changed, chat, line, read_line, tool_chat

TOKENS = TokenLimit(lambda messages, tools: len(messages), 1000)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(-1e15, 1e15)
    | st.sampled_from([float("nan"), float("inf")])
    | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture
def sessions(services: Services) -> sessionmaker[Session]:
    return services.sessions


@pytest.fixture
def project(sessions: sessionmaker[Session], project_id: uuid.UUID) -> uuid.UUID:
    """A project with the task `t`."""
    with transaction(sessions) as session:
        create_task(session, project_id, "t", grader={"kind": "exact"}, holdout_share=0.2)
    return project_id


def store(sessions: sessionmaker[Session], project: uuid.UUID, *items: object) -> list[LineResult]:
    with transaction(sessions) as session:
        batch = [read_item(number, item) for number, item in enumerate(items, 1)]
        return import_batch(session, project, batch, default_task="t", tokens=TOKENS)


# Hashes


@given(
    metadata=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), json_values)
)
def test_order_of_keys_and_white_space_keep_the_content_hash(metadata: dict[str, Any]) -> None:
    item = tool_chat(metadata=metadata, reward=1, session_id="s")
    try:
        expected = chat_format.read(item).content_hash
    except InvalidTrajectory:
        return
    assert chat_format.read(parse_json(json.dumps(_reversed(item), indent=3))).content_hash == expected


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "other",
    [
        chat(answer="Lost."),
        chat(reward=0.5),
        chat(success=False),
        chat(session_id="s"),
        chat(trajectory_id="x"),
        chat(metadata={"a": 1}),
        chat(tools=tool_chat()["tools"]),
        changed(chat(), "messages", 1, "weight", to=1),
    ],
)
def test_what_was_sent_changes_the_content_hash(other: dict[str, Any]) -> None:
    assert chat_format.read(other).content_hash != chat_format.read(chat()).content_hash


def test_absent_equals_null_and_the_task_is_no_part_of_the_content_hash() -> None:
    expected = chat_format.read(chat(reward=1)).content_hash
    assert chat_format.read(chat(reward=1.0, success=None, tools=[], metadata={}, task="t")).content_hash == expected


# Rows


def test_what_is_read_back_is_what_was_sent(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    sent = tool_chat(
        trajectory_id="a", session_id="s", reward=0.5, reward_source="annotator", success=True, adapter_version="b@1",
        metadata={"emoji": "\U0001f600", "big": 10**40, "deep": [[{}]]},
    )  # fmt: skip
    [result] = store(sessions, project, sent)
    assert result.id is not None
    with transaction(sessions) as session:
        row = get_trajectory(session, project, result.id)
        assert (row.messages, row.tools, row.details) == (sent["messages"], sent["tools"], sent["metadata"])
        assert (row.reward, row.reward_source, row.success) == (0.5, "annotator", True)
        assert (row.trajectory_id, row.session_id, row.adapter_version) == ("a", "s", "b@1")
        assert (row.task.name, row.tokens, row.held_out) == ("t", 6, result.held_out)


def test_lists_are_filtered_ordered_and_continue(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    with transaction(sessions) as session:
        create_task(session, project, "u", grader={"kind": "exact"}, holdout_share=0.5)
    answered: list[dict[str, Any]] = [{}, {"adapter_version": "bot@1"}, {"adapter_version": "bot@12"}, {}]
    results = store(
        sessions,
        project,
        *(chat(f"q{n}", task="tu"[n % 2], session_id=f"s{n % 3}", **answered[n % 4]) for n in range(12)),
    )
    ids = [result.id for result in results]
    with transaction(sessions) as session:
        first = list_trajectories(session, project, TrajectoryFilter(), limit=5)
        rest = list_trajectories(session, project, TrajectoryFilter(), after=first[-1].seq)
        assert [row.id for row in (*first, *rest)] == ids
        assert [
            row.id for row in list_trajectories(session, project, TrajectoryFilter(task="u"), with_messages=False)
        ] == ids[1::2]
        assert [row.id for row in list_trajectories(session, project, TrajectoryFilter(session_id="s2"))] == ids[2::3]
        assert [row.id for row in list_trajectories(session, project, TrajectoryFilter(adapter_version="bot@1"))] == (
            ids[1::4]
        )
        assert [row.id for row in list_trajectories(session, project, TrajectoryFilter(held_out=True))] == [
            result.id for result in results if result.held_out
        ]


def test_a_project_sees_only_its_own(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    [result] = store(sessions, project, chat())
    assert result.id is not None
    with transaction(sessions) as session:
        stranger = Project(id=uuid.uuid4(), name=uuid.uuid4().hex)
        session.add(stranger)
        session.flush()
        assert list_trajectories(session, stranger.id, TrajectoryFilter()) == []
        assert list_tasks(session, stranger.id) == []
        with pytest.raises(TrajectoryNotFound):
            get_trajectory(session, stranger.id, result.id)
        with pytest.raises(TaskNotFound):
            get_task(session, stranger.id, "t")
        [refused] = import_batch(session, stranger.id, [read_item(1, chat())], default_task="t", tokens=TOKENS)
        assert refused.code == "task_unknown"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(metadata=st.dictionaries(st.text(st.characters(), max_size=8), json_values, max_size=4))
def test_whatever_passes_the_checks_postgres_takes(services: Services, metadata: dict[str, Any]) -> None:
    """No line may pass the checks and then take its whole batch down."""
    item = chat(metadata=metadata)
    try:
        chat_format.read(item)
    except InvalidTrajectory:
        return
    with services.engine.connect() as connection:
        stored = connection.execute(
            text("select cast(:j as jsonb)"), {"j": canonical_json(metadata).decode()}
        ).scalar_one()
    assert stored == metadata


# Tasks


def test_a_task_is_created_once(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    def create(**spec: Any) -> bool:
        with transaction(sessions) as session:
            return create_task(
                session, project, "a.b-c_1", **{"grader": {"kind": "exact"}, "holdout_share": 0.1, **spec}
            )[1]

    assert create() is True
    assert create() is False
    for other in ({"grader": {"kind": "numeric"}}, {"holdout_share": 0.2}, {"description": "x"}):
        with pytest.raises(NameTaken, match=next(iter(other))):
            create(**other)


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a/b", "a\n", "a\0", "x" * 65, "ä"])
def test_bad_names_are_refused(sessions: sessionmaker[Session], project: uuid.UUID, name: str) -> None:
    with transaction(sessions) as session:
        with pytest.raises(InvalidName):
            create_task(session, project, name, grader={}, holdout_share=0.1)
        with pytest.raises(TaskNotFound):
            get_task(session, project, name)


def test_counts_are_by_task(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    results = store(sessions, project, *(chat(f"q{n}") for n in range(20)))
    with transaction(sessions) as session:
        other, _ = create_task(session, project, "empty", grader={}, holdout_share=0.1)
        task = get_task(session, project, "t")
        assert count_trajectories(session, [task.id, other.id]) == {
            task.id: TaskCounts(20, sum(result.held_out for result in results)),
            other.id: TaskCounts(0, 0),
        }


def test_reading_a_line_never_raises() -> None:
    assert isinstance(read_line(1, b"\xff")[1], InvalidTrajectory)
    assert isinstance(read_line(1, None)[1], InvalidTrajectory)
    assert not isinstance(read_line(1, line(chat()))[1], InvalidTrajectory)
