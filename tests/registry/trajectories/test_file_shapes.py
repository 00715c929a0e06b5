"""Files that are not one value a line: a file's beginning tells its shape, and no good line is ever lost."""

import gzip
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidTrajectory
from registry.trajectories.documents import JsonSplitter
from registry.trajectories.draft import Draft, Sent
from registry.trajectories.files import FileReader, SizeLimits, TrajectoryFile
from tests.trajectory_samples import chat, read_file

SIZES = [1, 3, 64, 1 << 20]
ITEMS = [chat(f'question {n} {{[,"\\\u2028', f"answer {n}") for n in range(5)]


def told(found: list[Sent]) -> list[tuple[int, str]]:
    """(line, the question or the code)"""
    return [(n, sent.messages[0]["content"].split()[1] if isinstance(sent, Draft) else sent.code) for n, sent in found]


EACH = [(n + 1, str(n)) for n in range(5)]
SHAPES = {
    "lines": "\n".join(map(json.dumps, ITEMS)),
    "a list in one line": json.dumps(ITEMS),
    "a list over lines": json.dumps(ITEMS, indent=2),
    "a list, one item a line": "[\n" + ",\n".join(map(json.dumps, ITEMS)) + "\n]\n",
    "documents": "\n".join(json.dumps(item, indent=2) for item in ITEMS),
    "documents without space between": "".join(json.dumps(item, indent=2) for item in ITEMS),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_file_is_read(shape: str, packed: bool, size: int) -> None:
    data = b"\xef\xbb\xbf" + SHAPES[shape].encode()
    assert told(read_file(gzip.compress(data) if packed else data, "chat", size=size)) == EACH


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("first", "codes"),
    [
        (b'{"messages": [', ["invalid_json"]),
        (b'{"messages": "cut in a text', ["invalid_json"]),
        (b'{"messages": "\xff"}', ["invalid_utf8"]),
        (b"{}}", ["messages_missing", "invalid_json"]),
        (b"}", ["invalid_json"]),
        (b'[{"messages"', ["invalid_json"]),
        (b"[", ["invalid_json"]),
        (b"[1, 2]", ["not_an_object", "not_an_object"]),
        (b"[]", []),
        (b"question,answer", ["invalid_json"]),
        (b"\xff\xfe\x00", ["invalid_utf8"]),
        (b'{"a": 1, "a": 2}', ["duplicate_key"]),
        (b'{"reward": NaN}', ["not_finite"]),
        (b"{" * 200, ["invalid_json"]),
        (b"[" * 200, ["invalid_json"]),
    ],
)
def test_a_broken_first_line_never_swallows_the_good_ones(first: bytes, codes: list[str], size: int) -> None:
    data = b"\n" + first + b"\n" + SHAPES["lines"].encode()
    found = read_file(data, "chat", size=size)
    assert [sent.code for _, sent in found if isinstance(sent, InvalidTrajectory)] == codes
    assert told(found)[len(codes) :] == [(n + 3, str(n)) for n in range(5)]


@pytest.mark.parametrize("size", SIZES)
def test_a_document_that_breaks_off_leaves_the_ones_before(size: int) -> None:
    data = SHAPES["documents"].encode() + b'\n{"messages": [\n'
    found = told(read_file(data, "chat", size=size))
    assert found[:5] == EACH
    assert {code for _, code in found[5:]} == {"invalid_json"}
    items = SHAPES["a list over lines"].encode()
    reader = FileReader(JsonSplitter(10_000))
    lines = [*reader.feed(items[:-40]), *reader.finish()]
    assert len(lines) == 5
    assert reader.stopped is not None
    assert "the list has no end" in reader.stopped


def test_what_is_too_long_is_skipped_to_its_end() -> None:
    long = chat("x" * 3000)
    limits = SizeLimits(2000, 2000)
    for data in ([*ITEMS, long, *ITEMS], [long, *ITEMS, *ITEMS]):
        for text in (json.dumps(data), "\n".join(map(json.dumps, data))):
            codes = [
                sent.code if isinstance(sent, InvalidTrajectory) else None
                for _, sent in read_file(text.encode(), "chat", size=100, limits=limits)
            ]
            assert sorted(codes, key=bool) == [None] * 10 + ["line_too_long"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
broken_lines = st.binary(max_size=40).map(lambda data: data.replace(b"\n", b" "))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.none(), broken_lines, json_values.map(lambda v: json.dumps(v).encode())), max_size=6),
       st.sampled_from(SIZES))  # fmt: skip
def test_no_good_line_is_lost_behind_a_good_first_line(lines: list[bytes | None], size: int) -> None:
    good = json.dumps(ITEMS[0]).encode()
    data = b"\n".join([good, *(good if line is None else line for line in lines), good])
    found = read_file(data, "chat", size=size)
    assert sum(isinstance(sent, Draft) for _, sent in found) == 2 + sum(line is None for line in lines)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[],":\\ab1 \n', max_size=60).map(str.encode), st.integers(1, 60))
def test_any_bytes_are_read_alike_however_they_are_cut(data: bytes, size: int) -> None:
    whole, cut = read_file(data, "chat"), read_file(data, "chat", size=size)
    assert told(whole) == told(cut)


@pytest.mark.parametrize(
    "text", ['{"a":' * 400_000, "[" * 1_000_000, '[{"a": "' + "\\\\" * 1_000_000, "{\n" * 50_000, '"' * 2_000_000]
)
def test_time_is_linear_in_the_bytes(text: str) -> None:
    began = time.monotonic()
    file = TrajectoryFile("chat", SizeLimits(500_000, 500_000))
    data = text.encode()
    for start in range(0, len(data), 65_536):
        list(file.feed(data[start : start + 65_536]))
    list(file.finish())
    assert time.monotonic() - began < 10
