"""Versions, scores, aliases, keys and chat on the command line, against the real application."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.database import transaction
from registry.settings import Settings
from registry.wiring import Services
from tests.api.cli.invoking import fail, memgen, succeed
from tests.api.live_api import serve
from tests.api.stored import make_adapter, make_gate, make_scores, make_task, make_version
from tests.api.watched import Watch, watch

__all__ = ["watch"]


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> None:
    """`bot` with versions 1 and 2 that passed, 3 that was rejected, scored on the task `t`."""
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id), make_task(session, project_id, "t")
        versions = [make_version(session, adapter, task) for _ in range(3)]
        for version, after in zip(versions, (0.5, 0.75, 0.1), strict=True):
            make_gate(session, version, task, before=0.25, after=after)
        make_scores(session, adapter, task, {None: 0.25, versions[0]: 0.5, versions[1]: 0.75})


def test_versions_and_scores(bot: None) -> None:
    succeed("promote", "bot", "2")
    data = succeed("versions", "bot", "--json").document["data"]
    assert [(v["number"], v["verdict"], v["aliases"], v["scores"]) for v in data] == [
        (1, "passed", [], {"t": 0.5}),
        (2, "passed", ["champion"], {"t": 0.75}),
        (3, "rejected", [], {}),
    ]
    lines = [line.split() for line in succeed("versions", "bot").out.splitlines()]
    assert lines[0] == ["version", "verdict", "form", "task", "parent", "aliases", "t", "created"]
    assert lines[2][:7] == ["2", "passed", "cache", "t", "base", "champion", "75.0%"]
    scores = succeed("scores", "bot").out
    assert [line.split() for line in scores.splitlines()][1:4] == [["base", "25.0%"], ["1", "50.0%"], ["2", "75.0%"]]
    assert "ACC 75.0%" in scores
    assert succeed("scores", "bot", "--json").document["metrics"]["acc"] == 0.75


def test_promote_roll_back_and_history(bot: None) -> None:
    assert "has not been moved" in succeed("history", "bot").out
    assert "none to 1" in succeed("promote", "bot", "1", "--expected", "0", "--reason", "first").out
    assert succeed("promote", "bot", "2", "--json").document["from_version"] == 1
    message = fail("promote", "bot", "1", "--expected", "1")
    assert "is at version 2, not 1" in message
    assert "(409 stale_alias)" in message
    assert "(403 gate_not_passed)" in fail("promote", "bot", "3")
    assert "(404 version_not_found)" in fail("promote", "bot", "9")
    assert "2 to 1" in succeed("rollback", "bot", "--reason", "complaints").out
    assert succeed("rollback", "bot", "--to", "2", "--json").document["kind"] == "rollback"
    assert "(409 stale_alias)" in fail("rollback", "bot", "--expected", "1")
    moves = succeed("history", "bot", "--json").document["data"]
    assert [move["to_version"] for move in moves] == [1, 2, 1, 2]
    assert "complaints" in succeed("history", "bot").out
    assert succeed("promote", "bot", "1", "--alias", "candidate", "--json").document["alias"] == "candidate"
    assert len(succeed("history", "bot", "--alias", "candidate", "--json").document["data"]) == 1


def test_an_adapter_without_versions(api_url: str) -> None:
    succeed("adapter", "create", "new")
    assert "memgen train new" in succeed("versions", "new").out
    assert "Nothing was scored" in succeed("scores", "new").out
    assert "(404 alias_not_found)" in fail("rollback", "new")


def test_text_from_outside_is_no_markup(api_url: str) -> None:
    succeed("adapter", "create", "new", "--description", "[bold]x[/bold] [/]")
    assert "[bold]x[/bold] [/]" in succeed("adapter", "list").out


def test_keys(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    created = succeed("keys", "create", "agent", "--scope", "read", "--scope", "write", "--json").document
    assert created["scopes"] == ["read", "write"]
    shown = succeed("keys", "create", "other", "--scope", "read")
    assert shown.out.startswith("mg_")
    assert "agent" in succeed("keys", "list").out
    with monkeypatch.context() as patch:
        patch.setenv("MEMGEN_API_KEY", shown.out.strip())
        assert succeed("task", "list", "--json").document == {"data": []}
        assert "(403 missing_scope)" in fail("task", "create", "t")
    assert "revoked" in succeed("keys", "revoke", created["id"]).out
    keys = {key["name"]: key for key in succeed("keys", "list", "--json").document["data"]}
    assert keys["agent"]["revoked_at"] is not None
    assert keys["other"]["revoked_at"] is None
    assert "scopes" in fail("keys", "create", "third", "--scope", "fly")
    assert memgen("keys", "create", "third").code == 2


@pytest.fixture
def chat_url(
    settings: Settings, tiny_base: Path, api_key: str, no_service: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with serve(tiny, serve_model=True) as url:
        monkeypatch.setenv("MEMGEN_API_URL", url)
        monkeypatch.setenv("MEMGEN_API_KEY", api_key)
        yield url


def test_chat(chat_url: str) -> None:
    one = succeed("chat", "base", "hi", "--max-tokens", "3", "--system", "Be brief.", "--json").document
    assert one["usage"]["completion_tokens"] <= 3
    answered = succeed("chat", "base", "hi", "--max-tokens", "3", "--system", "Be brief.")
    assert answered.out == one["choices"][0]["message"]["content"] + "\n"
    assert answered.err.startswith("[base; no memory woven in; ")
    talk = succeed("chat", "base", "--max-tokens", "3", "--json", stdin="hi\n\nand then?\n").document
    assert [m["role"] for m in talk["messages"]] == ["user", "assistant", "user", "assistant"]
    assert talk["data"][1]["usage"]["prompt_tokens"] > talk["data"][0]["usage"]["prompt_tokens"]
    assert "(404 model_not_found)" in fail("chat", "nobody", "hi")


def test_an_answer_is_shown_as_it_is_written(chat_url: str, watch: Watch) -> None:
    whole = succeed("chat", "base", "hi", "--max-tokens", "20").out
    watch.hold(after=3)
    code = "from api.cli.main import run; run(['chat', 'base', 'hi', '--max-tokens', '20'])"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Unbuffered: what a buffer took beside the first byte would be lost to `communicate`.
    with subprocess.Popen([sys.executable, "-c", code], bufsize=0, **pipes) as shell:
        assert shell.stdout is not None
        first = shell.stdout.read(1)
        watch.go()
        rest, notes = shell.communicate(timeout=60)
    assert ((first + rest).decode(), shell.returncode) == (whole, 0)
    assert notes.startswith(b"[base; no memory woven in; 20 tokens in ")


def test_an_answer_that_fails_in_the_middle_ends_its_line(chat_url: str, watch: Watch) -> None:
    whole = succeed("chat", "base", "hi", "--max-tokens", "20").out
    watch.fail_at = watch.steps + 5
    done = memgen("chat", "base", "hi", "--max-tokens", "20")
    assert (done.code, done.out[-1]) == (1, "\n")
    assert len(done.out) > 1
    assert whole.startswith(done.out[:-1])
    assert "(200 internal_error)" in done.err
