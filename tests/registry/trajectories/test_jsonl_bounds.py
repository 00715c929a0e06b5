"""Compressed imports that unpack to far more than was sent: memory stays that of one line and one piece."""

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from registry.trajectories import unpacking
from registry.trajectories.documents import JsonSplitter
from registry.trajectories.files import FileReader

LINE = 100_000
PEAK = 3_000_000


def bomb(piece: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(piece) for _ in range(times)) + packer.flush()


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1 << 12, 1 << 30])
@pytest.mark.parametrize(
    ("piece", "found"),
    [(bytes(1 << 20), [None]), (b"\n" * (1 << 20), []), (b" " * (1 << 20), [None])],
    ids=["one line of zeros", "empty lines", "one line of spaces"],
)
def test_a_bomb_takes_the_memory_of_one_line(piece: bytes, found: list[bytes | None], size: int) -> None:
    data = bomb(piece, 64)
    reader = FileReader(JsonSplitter(LINE))
    tracemalloc.start()
    lines = [line.data for chunk in chunks(data, size) for line in reader.feed(chunk)]
    lines += [line.data for line in reader.finish()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == found
    assert peak < PEAK


def test_a_bomb_of_bombs_is_unpacked_once_and_named() -> None:
    reader = FileReader(JsonSplitter(LINE))
    inner = bomb(bytes(1 << 20), 16)
    assert [*reader.feed(gzip.compress(inner)), *reader.finish()] == []
    assert reader.bytes_read <= len(inner)
    assert "packed twice" in (reader.stopped or "")


def test_what_is_left_of_a_chunk_is_copied_in_short_pieces_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk as long as the whole body: each byte of it reaches the unpacker about once, not once for each piece."""
    seen = 0

    class Counting:
        def __init__(self, wbits: int) -> None:
            self.real = real(wbits=wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal seen
            seen += len(data)
            return self.real.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    real = zlib.decompressobj
    monkeypatch.setattr(unpacking.zlib, "decompressobj", Counting)
    counts = []
    for times in (1 << 10, 1 << 13):
        data, seen = b"".join(gzip.compress(bytes(1000) + b"\n", mtime=0) for _ in range(times)), 0
        reader = FileReader(JsonSplitter(LINE))
        assert len(list(reader.feed(data))) == times
        counts.append(seen / len(data))
    assert counts[1] < 4 * counts[0]
