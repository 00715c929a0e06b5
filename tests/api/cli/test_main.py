"""How `memgen` begins and ends: help, exit codes, one clear line for what a user can cause."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.main import get_command

from api.cli import local
from api.cli.main import app, run
from api.local.errors import PortTaken
from registry.errors import NotConfigured
from tests.api.cli.invoking import fail, memgen, parse, succeed

COMMANDS = {
    *("up", "down", "status", "init", "open", "doctor", "base", "demo"),
    *("task", "upload", "convert", "trajectories", "adapter", "train", "train-trigger", "jobs"),
    *("versions", "push", "pull", "scores", "gate", "analyze", "promote", "rollback", "history"),
    *("schedule", "loop", "trace", "delete-data", "deletions", "gc"),
    *("route", "feedback", "chat", "keys", "webhooks", "upstreams", "judge", "recording"),
}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom api.cli.main import run\n"
        "try:\n run(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'fastapi', 'sqlalchemy', 'httpx', 'celery', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f" {name} " in done.stdout for name in COMMANDS)


def test_every_command_has_help_with_an_example_and_json(no_service: Path) -> None:
    group = get_command(app)
    assert set(group.commands) == COMMANDS  # type: ignore[attr-defined]  # a group
    for name, command in group.commands.items():
        nested = getattr(command, "commands", {})
        for arguments in ([name, sub] for sub in nested) if nested else [[name]]:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):  # all commands are built once
                group.main([*arguments, "--help"], prog_name="memgen", standalone_mode=False)
            assert f"Example: memgen {' '.join(arguments)}" in out.getvalue()
            assert "--json" in out.getvalue()


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))


EXAMPLES = {name: command.epilog for name, command in _commands(get_command(app)) if command.epilog} | {
    "memgen itself": get_command(app).epilog
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_one_that_its_own_parser_takes(
    name: str, no_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"`([^`]+)`", EXAMPLES[name])
    for line in example.split(" && "):
        program, *words = shlex.split(line)
        assert program == "memgen"
        for word in words:  # files that it reads are there
            if re.search(r"\.\w+$", word) and "/" not in word:
                (tmp_path / word).touch()
        path = parse(words)
        assert name == "memgen itself" or name.split() == path[1 : 1 + len(name.split())]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("memgen do", {"doctor", "down"}), ("memgen versions com", {"compare"}), ("memgen doctor --j", {"--json"})],
)
def test_a_shell_completes_what_the_parser_knows(typed: str, offered: set[str], no_service: Path) -> None:
    assert offered <= set(_completed(typed))


def _completed(typed: str) -> list[str]:
    environment = os.environ | {
        "_MEMGEN_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    code = "from api.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_what_failed_is_the_one_document_too(api_url: str, tmp_path: Path) -> None:
    error = memgen("history", "nobody", "--json").document["error"]
    assert (error["status"], error["code"]) == (404, "adapter_not_found")
    assert "nobody" in error["detail"]
    assert "memgen adapter list" in error["advice"]
    assert error["request_id"]
    error = memgen("promote", "bot", "one", "--json").document["error"]
    assert error["code"] == "usage"
    assert "'version'" in error["detail"]
    error = memgen("--api-url", "http://127.0.0.1:1", "jobs", "--json").document["error"]
    assert error["code"] == "api_unreachable"
    file = tmp_path / "a.jsonl"
    file.write_text("{}\n")
    succeed("task", "create", "t")
    done = memgen("upload", str(file), "--task", "t", "--strict", "--json")  # its report, and no second document
    assert (done.code, done.document["refused"]) == (1, 1)


def test_a_home_that_can_not_be_one_is_one_clear_line(no_service: Path) -> None:
    no_service.write_text("a file")
    for command in ("status", "up", "down"):
        assert f"{no_service}/run/lock: Not a directory" in fail(command)


def test_a_reader_that_has_enough_is_no_fault(no_service: Path) -> None:
    code = "from api.cli.main import run; run(['status', '--json'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()  # before anything is written
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(300) == 1


@pytest.mark.parametrize("arguments", [("status", "--json"), ("status",), ("--help",)])
def test_a_full_disk_behind_stdout_is_one_clear_line(arguments: tuple[str, ...], no_service: Path) -> None:
    code = f"from api.cli.main import run; run({[*arguments]})"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_shell_completes_names_that_the_service_knows(api_url: str) -> None:
    for name in ("support-bot", "sales-bot"):
        succeed("adapter", "create", name)
    succeed("task", "create", "support")
    assert _completed("memgen promote s") == ["sales-bot", "support-bot"]
    assert _completed("memgen train sales-bot --task s") == ["support"]
    assert _completed("memgen judge show s") == []
    assert _completed("memgen --api-url http://127.0.0.1:1 promote s") == [], "and says nothing of it"


def test_a_name_that_is_nearly_one_is_offered(api_url: str) -> None:
    succeed("adapter", "create", "support-bot")
    succeed("task", "create", "refunds")
    assert "Did you mean 'support-bot'?" in fail("history", "suport-bot")
    assert "Did you mean 'support-bot'?" in fail("chat", "support-bo@champion", "hi")
    assert "Did you mean 'refunds'?" in fail("train", "support-bot", "--task", "refund", "--json")
    assert "Did you mean" not in fail("history", "unlike")


def test_version(no_service: Path) -> None:
    assert succeed("--version").out.startswith("memgen 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("train", "bot"),
        ("train", "bot", "--task", "t", "--set", "steps"),
        ("train", "bot", "--task", "t", "--set", "a=1", "--set", "a=2"),
        ("promote", "bot", "0"),
        ("promote", "bot", "one"),
        ("upload", "/nowhere.jsonl"),
        ("jobs", "--json", "list"),
    ],
)
def test_misuse_ends_with_2(arguments: tuple[str, ...], no_service: Path) -> None:
    done = memgen(*arguments)
    assert done.code == 2
    assert done.err
    if "--json" in arguments:
        assert done.document["error"]["code"] == "usage"
    else:
        assert done.out == ""


def test_without_a_key_or_an_api_it_says_what_to_do(no_service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = fail("jobs", "--json")
    assert str(no_service / "service.env") in message
    assert "memgen up" in message
    monkeypatch.setenv("MEMGEN_API_KEY", "mg_any")
    for arguments in (("jobs",), ("--api-url", "http://127.0.0.1:1", "task", "list", "--json")):
        message = fail(*arguments)
        assert "memgen up" in message
        assert "MEMGEN_API_URL" in message
    assert "http://127.0.0.1:1 " in message
    monkeypatch.setenv("MEMGEN_API_PORT", "many")
    assert "MEMGEN_API_PORT: Input should be a valid integer" in fail("jobs")


def test_the_service_env_of_a_home_is_found(
    api_url: str, api_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEMGEN_API_URL")
    monkeypatch.delenv("MEMGEN_API_KEY")
    (tmp_path / "service.env").write_text(f"MEMGEN_API_URL='{api_url}'\nMEMGEN_API_KEY='{api_key}'\n")
    assert succeed("--home", str(tmp_path), "task", "list", "--json").document == {"data": []}


def test_a_wrong_key_is_one_clear_line(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGEN_API_KEY", "mg_wrong")
    assert "(401 unknown_key)" in fail("jobs")
    assert "(401 invalid_api_key)" in fail("chat", "base", "hi")


def test_unknown_names_are_one_clear_line_that_says_how(api_url: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}")
    assert "memgen task create" in fail("upload", str(file), "--task", "nowhere")
    for arguments in (("versions", "bot"), ("train", "bot", "--task", "t"), ("rollback", "bot")):
        assert "memgen adapter create" in fail(*arguments)


@pytest.mark.parametrize("error", [PortTaken("8000 is taken"), NotConfigured("no database"), RuntimeError("a bug")])
def test_expected_errors_are_a_line_and_bugs_a_traceback(error: Exception, no_service: Path) -> None:
    with mock.patch("api.local.control.status", side_effect=error):
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError, match="a bug"):
                run(["status"])
        else:
            assert fail("status", "--json") == f"memgen: {error}\n"
    assert local.status.__doc__
