"""The spool: what is written is moved once, in order, by whoever is alive."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from registry.recordings import spool as spool_module
from registry.recordings.spool import Spool, SpoolFull, abandoned, read_segment, waiting_files


def drain(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    while (batch := spool.next_batch(100)) is not None:
        found += batch.lines
        spool.moved(batch)
    return found


def test_lines_come_out_in_order_over_many_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 50)
    spool = Spool(tmp_path, most_bytes=10_000)
    lines = [b"line %d " % n + b"x" * (n % 37) for n in range(100)]
    for line in lines[:60]:
        spool.append(line + b"\n")
    assert drain(spool) == lines[:60]
    for line in lines[60:]:
        spool.append(line + b"\n")
    assert drain(spool) == lines[60:]
    assert (spool.waiting_bytes, waiting_files(tmp_path)) == (0, 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_writers_and_a_reader_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 500)
    spool = Spool(tmp_path, most_bytes=1_000_000)

    def write(writer: int) -> None:
        for n in range(200):
            spool.append(b"%d/%d\n" % (writer, n))

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    found: list[bytes] = []
    while any(writer.is_alive() for writer in writers):
        found += drain(spool)
    found += drain(spool)
    for n in range(4):
        assert [line for line in found if line.startswith(b"%d/" % n)] == [b"%d/%d" % (n, m) for m in range(200)]


def test_what_is_too_much_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=20)
    spool.append(b"0123456789\n")
    with pytest.raises(SpoolFull):
        spool.append(b"0123456789\n")
    assert drain(spool) == [b"0123456789"]
    spool.append(b"0123456789\n")


def test_half_a_line_on_a_full_disk_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, most_bytes=1000)
    spool.append(b"one\n")
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if bytes(data) == b"two\n":
            return write(descriptor, data[:2])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no space"):
        spool.append(b"two\n")
    monkeypatch.undo()
    spool.append(b"three\n")
    assert drain(spool) == [b"one", b"three"]


@pytest.mark.parametrize("is_short", [False, True])
def test_a_segment_that_is_not_given_back_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    """Its bytes count no longer, and the file stays."""
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 20)
    spool = Spool(tmp_path, most_bytes=60)
    lines = [b"line %d 6789" % number for number in range(4)]
    for line in lines:
        spool.append(line + b"\n")
    first, second = sorted(tmp_path.glob("*/*.jsonl"))
    for path in (first, second):
        if is_short:
            os.truncate(path, 13 if path is first else 0)
        else:
            path.rename(path.with_suffix(".gone"))
    if is_short:
        batch = spool.next_batch()
        assert batch is not None
        assert batch.lines == (lines[0],)
        spool.moved(batch)
    for waits in (1 if is_short else 2, 2):
        with pytest.raises(OSError, match="jsonl"):
            spool.next_batch()
        assert spool.pass_over() == waits
    assert (spool.next_batch(), spool.waiting_bytes) == (None, 0)
    spool.append(b"more\n")
    assert drain(spool) == [b"more"]
    assert spool.close() is not None
    assert sorted(tmp_path.glob("*/*.jsonl"))[-1].name == "00000003.jsonl"
    with abandoned(tmp_path) as left:
        assert left is not None, "another may read what was passed over"


WRITER = """
import sys, time
from pathlib import Path
from registry.recordings.spool import Spool
spool = Spool(Path(sys.argv[1]), most_bytes=10**9)
n = 0
while True:
    spool.append(b"%d\\n" % n)
    print(n, flush=True)
    n += 1
"""


def test_a_killed_process_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(500):
        child.stdout.readline()
    with abandoned(tmp_path) as left:
        assert left is None, "it lives"
    os.kill(child.pid, signal.SIGKILL)
    answered = [int(line) for line in child.stdout.read().split()]
    child.wait()
    child.stdout.close()
    last = answered[-1] if answered else 499
    with abandoned(tmp_path) as left:
        assert left is not None
        found = [int(line) for path in left.segments for lines in read_segment(path) for line in lines]
        assert found[: last + 1] == list(range(last + 1))
        with abandoned(tmp_path) as others:
            assert others is None, "one takes it over"
        for path in left.segments:
            path.unlink()
    assert list(tmp_path.iterdir()) == []
