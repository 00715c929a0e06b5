import gzip
import json
import random
import uuid
import zlib
from collections.abc import Iterable

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from registry.database import transaction
from registry.models import Trajectory
from registry.tasks import create_task
from registry.trajectories.files import FileReader
from registry.trajectories.imports import ImportReport, LineResult, TokenLimit, import_batch, read_item
from registry.trajectories.jsonl import JsonLine, LineSplitter
from registry.wiring import Services
from tests.trajectory_samples import BROKEN, chat, line, read_line


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
        return import_batch(session, project, batch, default_task="t", tokens=_tokens())


def read_all(chunks: Iterable[bytes], limit: int = 1000) -> tuple[list[JsonLine], FileReader]:
    reader = FileReader(LineSplitter(limit))
    lines = [found for chunk in chunks for found in reader.feed(chunk)]
    return [*lines, *reader.finish()], reader


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# Lines of a stream

TEXT = b"\xef\xbb\xbfone\r\n\n  \ntwo\n" + b"x" * 1001 + b"\nthree\n\nlast"
EXPECTED = [(1, b"one\r"), (4, b"two"), (5, None), (6, b"three"), (8, b"last")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 5000])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_lines_are_numbered_however_the_stream_is_cut(size: int, packed: bool) -> None:
    lines, reader = read_all(pieces(gzip.compress(TEXT) if packed else TEXT, size))
    assert [(found.number, found.data) for found in lines] == EXPECTED
    assert (reader.number, reader.stopped) == (8, None)


@pytest.mark.parametrize("size", [1, 10, 10_000])
def test_gzip_members_and_padding_are_read_on(size: int) -> None:
    data = gzip.compress(b"one\ntw") + gzip.compress(b"") + b"\0" * 20 + gzip.compress(b"o\nthree")
    lines, reader = read_all(pieces(data, size))
    assert [found.data for found in lines] == [b"one", b"two", b"three"]
    assert reader.stopped is None


@pytest.mark.parametrize("kept", [5, 12, 400, -9, -1])
def test_cut_gzip_gives_its_whole_lines_and_says_where_it_stopped(kept: int) -> None:
    written = [random.Random(n).randbytes(20).hex().encode() for n in range(50)]
    lines, reader = read_all([gzip.compress(b"\n".join(written) + b"\nfragment")[:kept]])
    assert [found.data for found in lines] == written[: len(lines)]
    assert len(lines) == reader.number
    assert reader.stopped is not None
    assert f"up to line {reader.number}." in reader.stopped


def test_damaged_gzip_stops_without_losing_what_came_before() -> None:
    data = gzip.compress(b"one\n") + b"\x1f\x8b garbage"
    lines, reader = read_all(pieces(data, 3))
    assert [found.data for found in lines] == [b"one"]
    assert reader.stopped is not None
    assert "damaged" in reader.stopped
    changed = bytearray(gzip.compress(b"one\n"))
    changed[-6] ^= 1
    assert read_all([bytes(changed)])[1].stopped is not None


def test_a_decompression_bomb_is_never_held_in_memory() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    data = b"".join(bomb.compress(b"x" * 1_000_000) for _ in range(100)) + bomb.flush()
    splitter = LineSplitter(1000)
    reader = FileReader(splitter)
    for chunk in pieces(data, 65_536):
        for _ in reader.feed(chunk):
            raise AssertionError("it has no line end")
        assert len(splitter._line) <= 1000
    assert list(reader.finish()) == [JsonLine(1, None)]
    assert reader.stopped is None


def test_files_put_together_bring_each_a_mark() -> None:
    """`copy a.jsonl+b.jsonl` of Windows, or `cat` of gzip files: every file begins with its byte order mark."""
    mark = b"\xef\xbb\xbf"
    files = [mark + b'{"n": 1}\r\n', mark + b'{"n": 2}\n', mark, b"\n" + mark + b'{"n": 3}']
    for data in (b"".join(files), b"".join(map(gzip.compress, files))):
        reader = FileReader(LineSplitter(1000))
        lines = [*reader.feed(data), *reader.finish()]
        assert [(line.number, json.loads(line.data or b"")["n"]) for line in lines] == [(1, 1), (2, 2), (4, 3)]
        assert reader.stopped is None


@pytest.mark.parametrize("data", [b"", b"\x1f", b"\n\n", b"\xef\xbb\xbf"])
def test_streams_of_nothing(data: bytes) -> None:
    lines, reader = read_all([data])
    assert [found.data for found in lines] == ([b"\x1f"] if data == b"\x1f" else [])
    assert reader.stopped is None


# Batches


def count_rows(sessions: sessionmaker[Session], project: uuid.UUID) -> int:
    with transaction(sessions) as session:
        return session.scalar(select(func.count()).where(Trajectory.project_id == project)) or 0


def test_every_broken_kind_beside_good_lines(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    data: list[tuple[bytes, str | None]] = []
    for number, (_, broken, code) in enumerate(BROKEN):
        data += [(broken, code), (line(chat(f"good {number}")), None)]
    with transaction(sessions) as session:
        batch = [read_line(n, text) for n, (text, _) in enumerate(data, 1)]
        results = import_batch(session, project, batch, default_task="t", tokens=_tokens())
    assert [(r.line, r.code) for r in results] == [(n, code) for n, (_, code) in enumerate(data, 1)]
    assert [r.status for r in results] == ["refused", "accepted"] * len(BROKEN)
    assert count_rows(sessions, project) == len(BROKEN)


def test_duplicates_point_at_the_row_that_is_there(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    first = store(sessions, project, chat("a"), chat("b"), chat("a"))
    again = store(sessions, project, chat("c"), chat("b"), chat("a"))
    assert [r.status for r in first] == ["accepted", "accepted", "duplicate"]
    assert [r.status for r in again] == ["accepted", "duplicate", "duplicate"]
    assert first[2].id == first[0].id == again[2].id
    assert again[1].id == first[1].id
    assert count_rows(sessions, project) == 3


def test_one_content_in_two_tasks_is_two_trajectories(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    with transaction(sessions) as session:
        create_task(session, project, "u", grader={}, holdout_share=0.5)
    results = store(sessions, project, chat(), chat(task="u"), chat(task="t"), chat(task="nowhere"))
    assert [r.status for r in results] == ["accepted", "accepted", "duplicate", "refused"]
    assert results[3].code == "task_unknown"


def test_lines_without_any_task_are_refused(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    with transaction(sessions) as session:
        batch = [read_line(1, line(chat()))]
        [result] = import_batch(session, project, batch, default_task=None, tokens=_tokens())
    assert result.code == "task_missing"


def test_what_the_model_cannot_read_is_refused(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    def count(messages: list[dict[str, str]], tools: object) -> int:
        if messages[0]["content"] == "odd":
            raise ValueError("roles must alternate")
        return len(messages[0]["content"])

    sent = [chat("odd"), chat("x" * 11), chat("x" * 10)]
    batch = [read_line(n, line(item)) for n, item in enumerate(sent, 1)]
    with transaction(sessions) as session:
        results = import_batch(session, project, batch, default_task="t", tokens=TokenLimit(count, 10))
    assert [r.code for r in results] == ["template_refused", "too_long", None]
    assert results[0].reason == "messages: roles must alternate"
    assert "11 tokens" in str(results[1].reason)
    assert "reads 10" in str(results[1].reason)


def test_stored_lines_are_not_tokenized_again(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    store(sessions, project, chat())
    with transaction(sessions) as session:
        batch = [read_line(1, line(chat()))]
        never = TokenLimit(lambda messages, tools: pytest.fail("counted"), 1)
        [result] = import_batch(session, project, batch, default_task="t", tokens=never)
    assert result.status == "duplicate"


def test_a_batch_that_fails_leaves_nothing(sessions: sessionmaker[Session], project: uuid.UUID) -> None:
    def fail() -> None:
        with transaction(sessions) as session:
            batch = [read_line(1, line(chat()))]
            import_batch(session, project, batch, default_task="t", tokens=_tokens())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert count_rows(sessions, project) == 0


def test_a_report_counts_all_and_lists_up_to_its_cap() -> None:
    report = ImportReport(max_lines=3)
    report.add([LineResult(1, "accepted", uuid.uuid4(), held_out=True), LineResult(2, "duplicate", held_out=True)])
    report.add([LineResult(n, "refused", code="too_long", reason="r") for n in range(3, 8)])
    assert report.counts == {"accepted": 1, "duplicate": 1, "refused": 5}
    assert (report.held_out, report.refused_by_code, report.lines_left_out) == (1, {"too_long": 5}, 2)
    assert [found.line for found in report.lines] == [3, 4, 5]


def _tokens() -> TokenLimit:
    return TokenLimit(lambda messages, tools: len(messages), 1000)
