"""The file that several processes append to: nothing noted is lost, whoever dies when."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.learning.pack import DamagedPack, Pack

ROOT = Path(__file__).resolve().parents[3]
_APPEND = """
import sys
from pathlib import Path
from bench.learning.pack import Pack
path, name = Path(sys.argv[1]), sys.argv[2]
pack = Pack(path)
number = 0
while number < int(sys.argv[3]):
    pack.put(f"{name}/{number}", {"scores": [number / 7] * 200})
    pack.update("commands", lambda known: [*(known or []), f"{name} {number}"])
    print(number, flush=True)
    if number % 5 == 4:
        pack.compact()
    number += 1
"""
_DIE_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from bench.learning.pack import Pack
pack = Pack(Path(sys.argv[1]))
pack.put("before", 1)
write = os.write
def half(file, data):
    write(file, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = half
pack.put("torn", list(range(1000)))
"""


def _start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, env=environment, text=True
    )


def test_the_last_value_of_a_key_holds_and_none_removes_it(tmp_path: Path) -> None:
    pack, other = Pack(tmp_path / "some" / "pack.gz"), Pack(tmp_path / "some" / "pack.gz")
    assert other.get("a") is None
    assert list(other) == []
    pack.put("a", {"score": 0.1 + 0.2})
    pack.put("b", [1])
    assert other.get("a") == {"score": 0.1 + 0.2}
    other.put("a", {"score": None})
    assert pack.get("a") == {"score": None}
    pack.put("b", None)
    assert list(other) == ["a"]
    lines = gzip.decompress(pack.path.read_bytes()).splitlines()
    assert json.loads(lines[0]) == {"key": "a", "value": {"score": 0.1 + 0.2}}


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    pack = Pack(tmp_path / "pack.gz")
    pack.put("a", [1])
    value = pack.get("a")
    assert value is not None
    value.append(2)
    assert pack.get("a") == [1]


def test_equal_values_are_not_appended_again(tmp_path: Path) -> None:
    pack = Pack(tmp_path / "pack.gz")
    pack.put("a", {"b": [1.5]})
    size = pack.path.stat().st_size
    pack.put("a", {"b": [1.5]})
    assert pack.path.stat().st_size == size


def test_compaction_keeps_every_value_in_order_and_readers_follow(tmp_path: Path) -> None:
    pack, other = Pack(tmp_path / "pack.gz"), Pack(tmp_path / "pack.gz")
    for number in range(30):
        pack.put(f"{number % 10}", number)
    assert other.get("3") == 23
    size = pack.path.stat().st_size
    pack.compact()
    assert pack.path.stat().st_size < size / 5
    assert [pack.get(key) for key in pack] == list(range(20, 30))
    assert list(other) == [str(number) for number in range(10)]
    other.put("3", "later")
    assert pack.get("3") == "later"
    assert list(tmp_path.iterdir()) == [pack.path]
    pack.compact()
    content = pack.path.read_bytes()
    Pack(pack.path).compact()
    assert pack.path.read_bytes() == content


def test_processes_append_and_compact_at_once(tmp_path: Path) -> None:
    path, count = tmp_path / "pack.gz", 25
    processes = [_start(_APPEND, str(path), name, str(count)) for name in "abcd"]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    pack = Pack(path)
    for name in "abcd":
        assert [pack.get(f"{name}/{n}") for n in range(count)] == [{"scores": [n / 7] * 200} for n in range(count)]
    commands = pack.get("commands")
    assert commands is not None
    assert sorted(commands) == sorted(f"{name} {n}" for name in "abcd" for n in range(count))


def test_a_process_killed_at_any_time_loses_nothing_that_it_had_noted(tmp_path: Path) -> None:
    path = tmp_path / "pack.gz"
    for name, wait in (("a", 3), ("b", 8), ("c", 15)):
        process, steady = _start(_APPEND, str(path), name, "100000"), _start(_APPEND, str(path), f"steady-{name}", "20")
        assert process.stdout is not None
        noted = [process.stdout.readline() for _ in range(wait)]
        time.sleep(wait / 1000)
        process.kill()
        noted += process.communicate()[0].splitlines()
        steady.communicate()
        assert (process.returncode, steady.returncode) == (-signal.SIGKILL, 0)
        keys = set(Pack(path))
        assert {f"{name}/{int(number)}" for number in noted} <= keys
        assert {f"steady-{name}/{number}" for number in range(20)} <= keys


def test_a_torn_append_is_told_and_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pack.gz"
    process = _start(_DIE_WHILE_WRITING, str(path))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    torn = path.stat().st_size
    pack = Pack(path)
    assert pack.get("before") == 1
    assert pack.get("torn") is None
    [record] = caplog.records
    assert "no whole member" in record.getMessage()
    pack.put("after", 2)
    assert path.stat().st_size < torn
    caplog.clear()
    assert {key: Pack(path).get(key) for key in Pack(path)} == {"before": 1, "after": 2}
    assert caplog.records == []


@pytest.mark.parametrize("kept", [1, 9, 10, 20, -8, -1])
def test_wherever_an_append_is_torn_the_members_before_it_are_kept(tmp_path: Path, kept: int) -> None:
    pack = Pack(tmp_path / "pack.gz")
    pack.put("before", 1)
    whole = pack.path.read_bytes()
    pack.put("torn", list(range(50)))
    last = pack.path.read_bytes()[len(whole) :]
    pack.path.write_bytes(whole + last[:kept])
    assert list(Pack(pack.path)) == ["before"]
    Pack(pack.path).compact()
    assert gzip.decompress(pack.path.read_bytes()) == gzip.decompress(whole)


def test_zeros_that_a_machine_left_behind_are_cut_off(tmp_path: Path) -> None:
    pack = Pack(tmp_path / "pack.gz")
    pack.put("before", 1)
    pack.path.write_bytes(pack.path.read_bytes() + bytes(512))
    later = Pack(pack.path)
    later.put("after", 2)
    assert list(Pack(pack.path)) == ["before", "after"]


def test_damage_before_the_end_is_an_error_and_nothing_is_cut(tmp_path: Path) -> None:
    pack = Pack(tmp_path / "pack.gz")
    for number in range(3):
        pack.put(f"{number}", number)
    data = bytearray(pack.path.read_bytes())
    data[len(data) // 2] ^= 255
    pack.path.write_bytes(data)
    for use in (lambda: list(Pack(pack.path)), lambda: Pack(pack.path).put("3", 3), Pack(pack.path).compact):
        with pytest.raises(DamagedPack, match="can't be read at byte"):
            use()
    assert pack.path.read_bytes() == data


@pytest.mark.parametrize("damage", ["flipped", "cut short", "no gzip", "flipped at its first line"])
def test_a_compacted_file_that_is_damaged_is_an_error_and_nothing_is_cut(tmp_path: Path, damage: str) -> None:
    """Its lines are one member: taken for a torn append, all of them would be cut off by the next one."""
    pack = Pack(tmp_path / "pack.gz")
    for number in range(50):
        pack.put(str(number), [number / 7])
    pack.compact()
    data = bytearray(pack.path.read_bytes())
    if damage == "cut short":
        del data[-10:]
    elif damage == "no gzip":
        data[:] = b"version https://git-lfs.github.com/spec/v1"
    else:
        data[20 if "first" in damage else len(data) // 2] ^= 0x10
    pack.path.write_bytes(data)
    for use in (Pack(pack.path), pack):
        with pytest.raises(DamagedPack, match=r"can't be read from byte 0"):
            use.put("new", 1)
    assert pack.path.read_bytes() == data
