"""Formats of sent trajectories: what a format's schema shows is what its reader takes."""

import pytest

from registry.errors import InvalidTrajectory
from registry.json_text import MAX_DEPTH
from registry.trajectories.files import SizeLimits, read_values
from registry.trajectories.formats.chat import read, write
from registry.trajectories.formats.formats import FORMATS
from registry.trajectories.imports import read_item
from tests.trajectory_samples import chat, line, read_line

FULL = chat(
    tools=[],
    task="refunds",
    trajectory_id="t-1",
    session_id="s-1",
    reward=0.5,
    reward_source="annotator",
    success=True,
    adapter_version="bot@7",
    metadata={"user": "anna"},
)


def test_the_schema_shows_the_fields_that_are_read() -> None:
    shown = FORMATS["chat"].schema
    assert set(shown["properties"]) == {*FULL, "parallel_tool_calls"}
    assert shown["additionalProperties"] is False
    draft = read(FULL)
    assert read_line(1, line(FULL)) == read_item(1, FULL) == (1, draft)
    assert read(write(draft)) == draft
    assert {field: getattr(draft, field) for field in FULL} == {**FULL, "tools": None}


@pytest.mark.parametrize("field", sorted(FORMATS["chat"].schema["properties"]))
def test_null_is_absent_and_a_wrong_type_has_a_code_of_its_field(field: str) -> None:
    if field == "parallel_tool_calls":
        assert read(chat(parallel_tool_calls=object())) == read(chat())
        return
    if field != "messages":
        assert read(chat(**{field: None})) == read(chat())
    with pytest.raises(InvalidTrajectory) as caught:
        read({**chat(), field: 7j})
    assert caught.value.code.startswith(field)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"\xff", "invalid_utf8"),
        (b"{", "invalid_json"),
        (b'{"a": 1, "a": 1}', "duplicate_key"),
        (b"NaN", "not_finite"),
        (b"[" * 100_000, "too_deep"),
        (line(chat(metadata={"deep": "x"})).replace(b'"x"', b"[" * MAX_DEPTH + b"]" * MAX_DEPTH), "too_deep"),
    ],
)
def test_what_is_no_json_is_refused_as_a_trajectory(text: bytes, code: str) -> None:
    _, refusal = read_line(1, text)
    assert isinstance(refusal, InvalidTrajectory)
    assert refusal.code == code


@pytest.mark.parametrize("sent_as", sorted(FORMATS))
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (chat(), "chat"),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, "sharegpt"),
        ({"schema_version": "ATIF-v1.7", "session_id": "s", "agent": {"name": "a"}, "steps": []}, "atif"),
        ({"resourceSpans": []}, "otlp"),
    ],
)
def test_a_value_of_another_format_is_refused_by_the_name_of_its_own(sent_as: str, value: object, name: str) -> None:
    limits = SizeLimits(10**6, 10**6)
    [(_, sent)] = [*read_values([(1, value)], sent_as, limits)] or [(1, None)]
    if FORMATS[sent_as].mark == FORMATS[name].mark:
        assert "seems to be of the format" not in str(sent)
    else:
        assert isinstance(sent, InvalidTrajectory)
        assert f"seems to be of the format {name!r}; name that one" in str(sent)
