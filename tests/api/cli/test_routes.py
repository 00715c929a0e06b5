"""`memgen route` and `memgen feedback` against the real application, and the recipes of the documentation."""

import re
import shlex
import uuid
from pathlib import Path

import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.serving.aliases import promote
from registry.serving.exposures import record_exposure
from registry.serving.resolution import ServingRequest, resolve
from registry.versions.records import get_version
from registry.wiring import Services
from tests.api.cli.invoking import fail, memgen, succeed
from tests.api.stored import make_adapter, make_gate, make_task, make_version

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
NAME = "support-bot"


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> None:
    """`support-bot` with versions 1 to 7 that passed and 8 that did not; 6 is the champion."""
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id, NAME), make_task(session, project_id, "t")
        for number in range(1, 9):
            version = make_version(session, adapter, task)
            make_gate(session, version, task, before=0.25, after=0.5 if number < 8 else 0.0)
        promote(session, adapter, "champion", get_version(session, adapter, 6), actor="test", reason="")


def _answer(services: Services, project_id: uuid.UUID, completion_id: str, session_id: str | None = None) -> str:
    with transaction(services.sessions) as session:
        served = resolve(session, project_id, NAME, ServingRequest(completion_id, session_id))
        record_exposure(session, project_id, completion_id, served, session_id)
        return served.label


def test_a_canary_on_the_command_line(bot: None, services: Services, project_id: uuid.UUID) -> None:
    assert "has no route yet" in fail("route", "results", NAME)
    assert "all of support-bot goes to the champion" in succeed("route", "list", NAME).out
    started = succeed("route", "canary", NAME, "7", "--share", "0.5", "--reason", "try it")
    assert started.out == "Route 1 of support-bot is live: canary, 6: 50.0%, 7: 50.0%.\n"
    assert "not yet" in succeed("route", "results", NAME).out
    stopped = ""
    for number in range(60):
        label = _answer(services, project_id, f"c{number}", f"s{number}")
        reward = "1" if label.endswith("@6") else "0"
        done = succeed("feedback", f"c{number}", reward)
        assert done.out == f"{reward} for {label}.\n"
        stopped = done.err
        if stopped:
            break
    assert stopped == "This stopped the canary: route 1 has ended.\n"
    shown = succeed("route", "show", NAME).out
    assert "canary monitor" in shown
    assert "version 7 is worse than 6: -100.0 points" in shown
    results = [line.split() for line in succeed("route", "results", NAME, "1").out.splitlines()]
    assert results[2][:2] == ["7", "50.0%"]
    assert "worse" in results[2]
    assert succeed("route", "list", NAME, "--json").document["data"][0]["state"] == "stopped"
    assert "(409 route_ended)" in fail("route", "end", NAME)


def test_a_canary_that_may_promote_itself(bot: None, services: Services, project_id: uuid.UUID) -> None:
    succeed("route", "canary", NAME, "7", "--share", "0.5", "--promotion", "non_inferior", "--margin", "0.5")
    terms = "The canary becomes the champion by itself once it is shown to be better, or not worse by 50 points.\n"
    assert terms in succeed("route", "show", NAME).out
    told = ""
    for number in range(60):
        _answer(services, project_id, f"c{number}", f"s{number}")
        told = succeed("feedback", f"c{number}", "1").err
        if told:
            break
    assert told == "This promoted the canary: it is the champion, and route 1 has ended.\n"
    assert "version 7 is not worse than 6 by 50 points" in " ".join(succeed("route", "show", NAME).out.split())
    assert "not yet, non-inferior" in succeed("route", "results", NAME).out
    assert succeed("history", NAME, "--json").document["data"][-1]["to_version"] == 7
    succeed("route", "canary", NAME, "5", "--promotion", "better")
    assert "once it is shown to be better.\n" in succeed("route", "show", NAME).out
    assert memgen("route", "canary", NAME, "4", "--promotion", "always").code == 2


def test_mistakes_end_with_one_line(bot: None) -> None:
    assert "(422 invalid_route)" in fail("route", "ab", NAME, "6=0.5", "7=0.4")
    assert "(403 gate_not_passed)" in fail("route", "canary", NAME, "8")
    assert "memgen route list" in fail("route", "show", NAME, "3")
    assert "(404 completion_not_found)" in fail("feedback", "chatcmpl-x", "1")
    assert memgen("feedback", "chatcmpl-x", "2").code == 2
    assert memgen("route", "ab", NAME, "six=0.5", "7=0.5").code == 2
    assert memgen("route", "ab", NAME, "6=half", "7=0.5").code == 2
    succeed("route", "shadow", NAME, "8")
    assert "6 answers, 8 shadows 100.0%" in succeed("route", "show", NAME).out
    assert "Shadow: 0 answers compared, 0 failed." in succeed("route", "results", NAME).out
    assert "(409 route_running)" in fail("route", "canary", NAME, "7")


def test_the_recipes_of_the_documentation_run(bot: None, services: Services, project_id: uuid.UUID) -> None:
    section = OPERATIONS.read_text().partition("## A/B, canary and shadow\n")[2]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) >= 12
    for program, *arguments in commands:
        assert program == "memgen"
        if arguments[0] == "feedback":
            _answer(services, project_id, arguments[1])
        succeed(*arguments)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, NAME)
        assert [alias.number for alias in [resolve(session, project_id, adapter.name).version] if alias] == [7]
