"""Lines of JSONL: they end at a newline, whatever else a text holds that Python calls the end of a line."""

import json

import pytest

from registry.errors import InvalidJson
from registry.json_text import canonical_json, jsonl_lines, parse_json
from registry.trajectories.files import SizeLimits, TrajectoryFile
from tests.trajectory_samples import chat

SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e\r\n"


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_line_ends_at_a_newline_only(ascii_only: bool) -> None:
    values = [{"text": f"a{SEPARATORS}b"}, {"text": SEPARATORS * 3, SEPARATORS: 1}, {"text": ""}]
    jsonl = "".join(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in values).encode()
    assert [json.loads(line) for line in jsonl_lines(jsonl)] == values


def test_no_lines() -> None:
    assert (jsonl_lines(b""), jsonl_lines(b"\n\n"), jsonl_lines(b"1\n2")) == ([], [], [b"1", b"2"])


def test_they_are_imported_as_they_were_sent() -> None:
    sent = [chat(f"{number}{SEPARATORS}", SEPARATORS + str(number)) for number in range(3)]
    file = TrajectoryFile("chat", SizeLimits(10_000, 10_000))
    data = "".join(json.dumps(item, ensure_ascii=False) + "\r\n" for item in sent).encode()
    read = [draft for start in range(0, len(data), 7) for _, draft in file.feed(data[start : start + 7])]
    read += [draft for _, draft in file.finish()]
    assert [getattr(draft, "messages", draft) for draft in read] == [item["messages"] for item in sent]


def test_integers_that_no_double_holds_are_not_finite() -> None:
    for value in (10**309, -(10**400), [1, {"a": 2 * 10**308}]):
        with pytest.raises(InvalidJson, match="too large for a double") as refused:
            canonical_json(value)
        assert refused.value.code == "not_finite"
    for value in (10**308, -(2**70), "9" * 400, {"9" * 400: 1}):
        assert parse_json(canonical_json(value)) == value
