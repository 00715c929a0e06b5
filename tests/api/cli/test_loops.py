"""Loops on the command line, against the real application: one command sets one up, one screen shows it."""

import re
import uuid
from datetime import timedelta

import pytest

from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.loops.plan import LoopPlan
from registry.models import Adapter, Loop, Schedule, Task
from registry.wiring import Services
from tests.api.cli.invoking import Done, fail, succeed
from tests.registry.conftest import Rows
from tests.registry.loops.looped import make_looped

COLUMNS = 80


@pytest.fixture
def rows(services: Services, project_id: uuid.UUID) -> Rows:
    built = Rows(services, project_id)
    with transaction(services.sessions) as session:
        built.make_adapter(session)
    return built


def _screen(name: str = "bot") -> str:
    shown = succeed("loop", "show", name).out
    assert max(len(line) for line in shown.splitlines()) < COLUMNS
    assert len(shown.splitlines()) <= 40, "one screen"
    return shown


def _parts(done: Done) -> dict[str, str]:
    return {part["part"]: part["outcome"] for part in done.document["setup"]}


def test_one_command_from_nothing(api_url: str, services: Services) -> None:
    command = ["loop", "create", "support-bot", "--task", "support", "--every", "night", "--after", "200"]
    refused = fail(*command)
    assert "or send `create`" in refused
    assert "(404 task_not_found)" in refused
    with transaction(services.sessions) as session:
        assert session.query(Task).count() == session.query(Schedule).count() == 0
    made = _parts(succeed(*command, "--create", "--grader", "exact", "--json"))
    assert set(made.values()) == {"made", "changed"}
    assert {"adapter", "task", "schedule", "gate", "retention", "loop"} <= set(made)
    again = _parts(succeed(*command, "--create", "--json"))
    assert set(again.values()) == {"kept"}
    with transaction(services.sessions) as session:
        assert session.query(Adapter).one().gate_policy == "canary"
        assert session.query(Task).one().grader == {"kind": "exact"}
        assert session.query(Schedule).one().cron == "0 3 * * *"
    told = succeed(*command).out
    assert "loop.support-bot: at 0 3 * * * (UTC), if 200 new wait" in told
    assert "The loop of support-bot learns support. State: running." in told
    shown = _screen("support-bot")
    assert "support-bot learns support. Champion: the bare base." in shown
    assert "Trains: 0 3 * * * (UTC); 0 of 200 new runs wait." in shown
    assert "Why not now: nothing new to learn" in shown
    assert "Records: all requests as support" in shown


def test_pausing_resuming_deleting(api_url: str, rows: Rows) -> None:
    make_looped(rows)
    assert "bot is paused: paused by hand." in succeed("loop", "pause", "bot").out
    assert "`memgen loop resume bot`" in succeed("loop", "pause", "bot").err
    assert "State: paused since" in _screen()
    assert "paused" in succeed("loop", "list").out
    assert succeed("loop", "list", "--json").document["data"][0]["held"] is True
    assert succeed("loop", "resume", "bot", "--json").document["state"] == "running"
    assert [c["kind"] for c in succeed("loop", "history", "bot", "--json").document["data"]] == [
        "resumed",
        "paused",
        "created",
    ]
    assert "paused by hand" in succeed("loop", "history", "bot").out
    deleted = succeed("loop", "delete", "bot").out
    assert "The loop of bot is deleted, and its schedule loop.bot. What stays:" in deleted
    assert "adapter bot, which has no champion" in deleted
    assert "`memgen loop create ADAPTER --task TASK` makes one" in fail("loop", "show", "bot")
    assert "No loop yet" in succeed("loop", "list").out


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--every", "fortnight"), "invalid_schedule"),
        (("--every", "5h"), "invalid_schedule"),
        (("--zone", "Mars/Olympus"), "invalid_schedule"),
        (("--canary-share", "0.9"), "invalid"),
        (("--promotion", "maybe"), "invalid_request"),
        (("--quiet-hours", "0"), "invalid"),
        (("--set", "stepz=3"), "config_error"),
        (("--grader", "exact"), "invalid"),
    ],
)
def test_what_makes_no_sense_is_refused_whole(
    api_url: str, rows: Rows, services: Services, options: tuple[str, ...], code: str
) -> None:
    rows.task("a")
    assert f"(422 {code})" in fail("loop", "create", "bot", "--task", "a", *options)
    with transaction(services.sessions) as session:
        assert session.query(Loop).count() == session.query(Schedule).count() == 0
        assert get_adapter(session, rows.project_id, "bot").gate_policy == "automatic"


def test_the_screen_of_a_loop_with_a_past(api_url: str, rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(cron="0 3 * * *", time_zone="Europe/Berlin", after=200))
    looped.send(60, "parcel", reward=1.0)
    looped.judge(passed=True)
    looped.judge(passed=False)
    looped.judge(passed=True)
    for number in range(12):
        answer = looped.routed.ask(f"s{number}")
        looped.routed.rate(answer, 1.0)
    looped.check()
    shown = _screen()
    assert re.search(r"runs that arrived +100 +100 +100", shown)
    assert re.search(r"promoted +1 +1 +1", shown)
    assert "bot@3 is being tried: route 1 gives it a share of the sessions" in shown
    assert "Canary: route 1 gives bot@3 20.0% since" in shown
    assert "Why not now: the canary of bot@3 is not decided" in shown
    looped.routed.end(1)
    for _ in range(3):
        looped.judge(passed=False)
    looped.check()
    shown = _screen()
    assert "State: gate_rejected since" in shown
    assert "it starts no training" in shown
    assert "memgen loop resume bot" in " ".join(shown.split())


def test_everything_on_the_screen_is_in_the_api(api_url: str, rows: Rows) -> None:
    make_looped(rows)
    found = succeed("loop", "show", "bot", "--json").document
    assert {"stages", "waiting", "canary", "attempts", "failures", "history", "champion", "state", "advice"} <= set(
        found
    )
    assert found["waiting"]["why_not"] is None
    assert {"day", "week", "total", "last", "stage"} == set(found["stages"][0])


def test_a_screen_of_long_names_and_errors_stays_one_screen(api_url: str, rows: Rows, services: Services) -> None:
    looped = make_looped(rows, LoopPlan(after=5))
    looped.send(40, "more", reward=1.0)
    job_id = looped.tick()
    assert job_id is not None
    looped.end(job_id, "failed", "x" * 5000)
    assert looped.check().state == "training_failed"
    with transaction(services.sessions) as session:
        session.query(Loop).one().checked_at = utc_now() - timedelta(hours=30)
        session.query(Adapter).one().name = "a" * 64
        session.query(Task).one().name = "b" * 64
    shown = _screen("a" * 64)
    assert "The beat last looked 30 h ago" in shown
    assert "Not counted: " in shown
