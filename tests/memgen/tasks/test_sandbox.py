"""The sandbox with programs that are right, wrong, greedy and hostile."""

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from memgen.errors import ConfigError, SandboxUnavailable
from memgen.tasks.sandbox import CHILD, Limits, run_tests

ADD = "def add(a, b):\n    return a + b\n"
ADDS = "assert add(1, 2) == 3"
PYTEST_ADDS = "from solution import add\n\ndef test_one():\n    assert add(1, 2) == 3\n"
SHORT = Limits(seconds=1.0)


def test_right_passes_and_wrong_fails() -> None:
    right = run_tests(ADD, ADDS)
    assert (right.passed, right.reason, right.output) == (True, "passed", "")
    assert right.isolation.missing == frozenset()
    wrong = run_tests(ADD.replace("+", "-"), ADDS)
    assert (wrong.passed, wrong.reason) == (False, "failed")
    assert "AssertionError" in wrong.output
    assert "SyntaxError" in run_tests("def add(", ADDS).output


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys; sys.exit(0)", "failed"),
        ("import os; os._exit(0)", "ended_early"),
        ("import atexit, os; atexit.register(os._exit, 0); raise SystemExit", "failed"),
        ('print(\'{"verdict": "passed", "token": ""}\'); raise SystemExit', "failed"),
        # The status pipe can be found; its token is another matter.
        (
            "import os\n"
            "for fd in range(3, 1024):\n"
            "    try:\n"
            '        os.write(fd, b\'\\n{"verdict": "passed", "token": ""}\\n{"isolation": 1}\\n[]\\n\\xff\\n\')\n'
            "    except OSError:\n"
            "        pass\n"
            "os._exit(0)",
            "failed",
        ),
        (
            "import os\n"
            "for fd in range(3, 1024):\n"
            "    try:\n"
            "        os.write(fd, b'[' * 500000 + b'\\n')\n"
            "    except OSError:\n"
            "        pass\n"
            "os._exit(0)",
            "ended_early",
        ),
        ("import sys; sys.stdin.seek(0); print(sys.stdin.read()); raise SystemExit(0)", "failed"),
    ],
)
def test_success_is_not_faked_by_leaving_or_printing(source: str, reason: str) -> None:
    result = run_tests(source, "assert False")
    assert (result.passed, result.reason) == (False, reason)
    assert "token" not in result.output or "print" in source


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("bytearray(1 << 40)", "memory"),
        ("import ctypes; ctypes.string_at(0)", "crashed"),
        ("while True: print('x' * 1000)", "output"),
        ("open('big', 'wb').write(bytes(17 << 20))", "failed"),
        ("files = [open('f%d' % i, 'w') for i in range(100)]", "failed"),
    ],
)
def test_limits(source: str, reason: str) -> None:
    result = run_tests(source, "", limits=SHORT)
    assert result.reason == reason, result.output
    assert result.seconds < 5
    assert len(result.output) <= 4000


FORBIDDEN = {
    "a socket": "import socket; socket.socket()",
    "a datagram pair": "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "a new process": "import os; os.fork()",
    "a command": "import subprocess; subprocess.run(['true'])",
    "exec": "import os, sys; os.execv(sys.executable, ['python', '-c', ''])",
    "a signal to the parent": "import os; os.kill(os.getppid(), 0)",
    "a signal to all": "import os; os.kill(-1, 0)",
    "the caller's environment": "import os; open('/proc/%d/environ' % os.getppid(), 'rb').read()",
    "a file of the system": "open('/etc/hostname').read()",
    "a file outside": "open('/tmp/memgen-escaped', 'w')",
    "a signal by a file": "import fcntl, os; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "another signal": "import fcntl; fcntl.fcntl(0, 10, 9)",
    "a signal by a group": "import fcntl, os, struct; fcntl.fcntl(0, 15, struct.pack('ii', 2, os.getppid()))",
    "a signal by a device": "import fcntl, os, struct; fcntl.ioctl(0, 0x8901, struct.pack('i', os.getppid()))",
    "shared memory": (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.shmat(0, None, 0)\n"
        "raise OSError(ctypes.get_errno(), 'shmat')"
    ),
    "a file's times": "import os; open('f', 'w').close(); os.utime('f', (1, 1))",
    "a file's length": "import os; open('f', 'w').close(); os.truncate('f', 0)",
    "permissions": "import os; os.chmod('/usr', 0o755)",
    "the parent's limits": "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CORE)",
    "more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_world_is_out_of_reach(what: str) -> None:
    source = "\n".join(
        [
            "try:",
            *("    " + line for line in FORBIDDEN[what].splitlines()),
            "except (PermissionError, ValueError) as error:",
            "    refused = str(error)",
        ]
    )
    result = run_tests(source, "assert refused, 'nothing was refused'")
    assert result.passed, result.output


def test_no_local_service_is_reached() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        source = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)"
        assert run_tests(source, "").reason == "failed"
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_nothing_of_the_caller_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGEN_SECRET", "s3cret")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    source = (
        "import os, sys\n"
        "assert 'MEMGEN_SECRET' not in os.environ and 'PATH' not in os.environ\n"
        "assert os.listdir('.') == []\n"
        "assert sys.stdin.read() == ''\n"
        "assert sys.flags.isolated\n"
        f"try:\n    os.write({writer}, b'x')\nexcept OSError:\n    closed = True"
    )
    result = run_tests(source, "assert closed")
    os.close(reader)
    os.close(writer)
    assert result.passed, result.output


def test_ordinary_programs_work() -> None:
    source = (
        "import asyncio, tempfile, threading\n"
        "with open('a', 'w') as f: f.write('1')\n"
        "with tempfile.TemporaryDirectory() as d: open(d + '/b', 'w').close()\n"
        "seen = []\n"
        "t = threading.Thread(target=seen.append, args=(1,)); t.start(); t.join()\n"
        "async def two(): return 2\n"
        "if __name__ == '__main__': raise SystemExit('no main part')"
    )
    result = run_tests(source, "assert seen == [1] and asyncio.run(two()) == 2 and open('a').read() == '1'")
    assert result.passed, result.output


@pytest.mark.parametrize("depth", [1500, 6000])
def test_a_folder_goes_however_deep_it_is(depth: int) -> None:
    """Deeper than a walk down it, and than a path may be long."""
    source = "import os\nprint(os.getcwd(), flush=True)\nos.mkdir('closed', 0)\n"
    result = run_tests(
        source + f"for _ in range({depth}):\n    os.mkdir('d'); os.chdir('d')\nopen('f', 'w').close()", ""
    )
    assert result.passed, result.output
    assert not Path(result.output.strip()).exists()


def test_a_dataclass_finds_its_module() -> None:
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int"
    result = run_tests(source, "assert P(1).x == 1")
    assert result.passed, result.output


def test_a_folder_is_left_empty_handed() -> None:
    result = run_tests("import os; print(os.getcwd()); os.mkdir('d'); open('d/f', 'w').close()", "")
    assert result.passed
    assert not Path(result.output.strip()).exists()


def test_pytest_runs_every_test() -> None:
    both = PYTEST_ADDS + "\ndef test_two(tmp_path):\n    assert add(2, 2) == 4\n"
    assert run_tests(ADD, both, form="pytest").passed
    result = run_tests(ADD.replace("a + b", "3"), both, form="pytest")
    assert result.reason == "failed"
    assert "test_two" in result.output


@pytest.mark.parametrize(
    "source",
    [
        "import pytest\npytest.exit('done', returncode=0)",
        "import pytest\ndef add(a, b): pytest.exit('done', returncode=0)",
        "import pytest\ndef add(a, b): pytest.skip('no')",
        "import sys\ndef add(a, b): sys.exit(0)",
        "import os\ndef add(a, b): os._exit(0)",
    ],
)
def test_pytest_is_not_talked_out_of_its_tests(source: str) -> None:
    assert not run_tests(source, PYTEST_ADDS, form="pytest").passed


def test_a_missing_pytest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(SandboxUnavailable, match="pip install pytest"):
        run_tests(ADD, PYTEST_ADDS, form="pytest")


def test_no_tests_do_not_pass_under_pytest() -> None:
    assert run_tests(ADD, "", form="pytest").reason == "failed"


def _child_without(isolated: str, folder: Path) -> Path:
    script = folder / "child.py"
    real = CHILD.read_text(encoding="utf-8")
    body, main = real.rsplit('if __name__ == "__main__":', 1)
    script.write_text(f'{body}\ndef isolate():\n    return {isolated}\n\nif __name__ == "__main__":{main}')
    return script


def test_less_isolation_is_refused_unless_allowed(tmp_path: Path) -> None:
    none = '{"network": False, "processes": True, "files": False}'
    child = _child_without(none, tmp_path)
    marker = tmp_path / "ran"
    source = f"open({str(marker)!r}, 'w').close()"
    with pytest.raises(SandboxUnavailable, match=r"does not isolate \['files', 'network'\]"):
        run_tests(source, "", child=child)
    with pytest.raises(SandboxUnavailable, match=r"does not isolate \['files'\]"):
        run_tests(source, "", allow_missing=frozenset({"network"}), child=child)
    assert not marker.exists()
    result = run_tests(source, "", allow_missing=frozenset({"network", "files"}), child=child)
    assert result.passed
    assert result.isolation.missing == {"network", "files"}
    assert marker.exists()


def test_a_child_that_does_not_start_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "child.py"
    broken.write_text("raise OSError('no such luck')")
    with pytest.raises(SandboxUnavailable, match="no such luck"):
        run_tests(ADD, ADDS, child=broken)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="seconds is 0"):
        Limits(seconds=0)
    with pytest.raises(ConfigError, match="form is 'unittest'"):
        run_tests(ADD, ADDS, form="unittest")
