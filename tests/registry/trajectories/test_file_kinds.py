"""Files that were sent by mistake: the report says what they are and what to do, and reads nothing of them."""

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
from contextlib import closing

import pytest

from registry.trajectories.files import SizeLimits, TrajectoryFile
from registry.trajectories.formats.formats import FORMATS
from tests.trajectory_samples import chat

TEXT = json.dumps(chat()).encode() + b"\n"


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("runs.jsonl", TEXT)
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo("runs.jsonl")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    return data.getvalue()


def in_sqlite() -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table runs (text)")
        return database.serialize()


FILES = {
    "a Parquet file": b"PAR1\x15\x04\x15\x0a\n{}\n" + bytes(range(256)) * 4 + b"PAR1",
    "an Arrow file": b"ARROW1\0\0\n\n",
    "an SQLite database": in_sqlite(),
    "a zip archive": zipped(),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\0\4",
    "a tar archive": tarred(),
    "packed twice": gzip.compress(gzip.compress(TEXT)),
    "zstd": b"\x28\xb5\x2f\xfd\x04\x58\n\n",
    "bzip2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
    "PowerShell": TEXT.decode().encode("utf-16"),
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "HTML": b"<!DOCTYPE html>\n<html>\n<body>Sign in</body>\n</html>\n",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n",
}


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("name", FILES)
def test_a_report_says_what_a_file_is(name: str, size: int) -> None:
    plain = FILES[name]
    for format_name in FORMATS:
        for data in (plain, gzip.compress(plain)) if name != "packed twice" else (plain,):
            file = TrajectoryFile(format_name, SizeLimits(10_000, 10_000))
            found = [sent for start in range(0, len(data), size) for sent in file.feed(data[start : start + size])]
            assert [*found, *file.finish()] == []
            stopped = file.reader.stopped or ""
            assert name in stopped
            assert "send the whole file again" not in stopped


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\n\n", b"P", b"PAR", b"BZ", b"\xff", b"question,answer\n"])
def test_what_only_begins_like_one_is_read_as_ever(text: bytes) -> None:
    file = TrajectoryFile("chat", SizeLimits(10_000, 10_000))
    found = [*file.feed(text), *file.finish()]
    assert len(found) == (text.strip() not in (b"", b"[]"))
    assert file.reader.stopped is None


def test_a_connection_that_closes_early_leaves_what_was_read() -> None:
    """Also where all of it is shorter than what tells a file's kind."""
    file = TrajectoryFile("chat", SizeLimits(10_000, 10_000))
    found = list(file.feed(TEXT + b'{"mess'))
    file.abandon("the connection closed")
    assert len([*found, *file.finish()]) == 1
    assert "the connection closed" in (file.reader.stopped or "")
