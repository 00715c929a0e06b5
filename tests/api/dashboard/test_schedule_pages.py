"""Schedules in the dashboard: made, changed, paused and deleted, with what came of each time that one was due."""

import re
import uuid
from datetime import timedelta

import pytest

from registry import jobs
from registry.clock import utc_now
from registry.database import transaction
from registry.models import Schedule, ScheduleRun
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with, wrongs_of
from tests.registry.conftest import Rows
from tests.registry.routed import make_routed

NEW = "/ui/schedules"


@pytest.fixture
def rows_with_bot(rows: Rows) -> Rows:
    """An adapter `bot`, a task `a`."""
    make_routed(rows)
    return rows


def _stored(services: Services, name: str = "nightly") -> Schedule:
    with transaction(services.sessions) as session:
        found = session.query(Schedule).filter_by(name=name, deleted_at=None).one()
        session.expunge(found)
        return found


def _make(visitor: Visitor, **fields: str) -> str:
    sent = {"name": "nightly", "adapter": "bot", "task": "a", "cron": "0 3 * * *", **fields}
    done = visitor.send(visitor.open("/schedules"), NEW, **sent)
    assert done.url.path == "/ui/schedules/nightly", done.text
    return done.text


def test_a_schedule_from_its_making_to_its_end(visitor: Visitor, services: Services, rows_with_bot: Rows) -> None:
    made = _make(visitor, time_zone="Europe/Berlin", new_trajectories="5", training="steps=40", min_reward="0.7")
    assert "nightly trains bot from now on." in made
    row = _stored(services)
    assert (row.cron, row.time_zone, row.new_trajectories) == ("0 3 * * *", "Europe/Berlin", 5)
    assert (row.params["training"]["steps"], row.params["min_reward"], row.params["promote"]) == (40, 0.7, True)
    shown = forms_of(made)["/ui/schedules/nightly"]
    assert (shown["cron"], shown["training"], shown["promote"]) == ("0 3 * * *", "steps=40", "yes")

    unticked = {**shown, "cron": "", "time_zone": "", "idle_hours": "1.5", "training": ""}
    del unticked["promote"]  # as a browser sends a box that is not checked
    changed = visitor.http.post("/ui/schedules/nightly", data=unticked).text
    assert "nightly is changed." in changed
    row = _stored(services)
    assert (row.kind, row.cron, row.idle_hours, row.new_trajectories) == ("idle", None, 1.5, 5)
    assert (row.params["training"]["steps"], row.params["promote"]) == (150, False)
    for text in ("steps", "40", "→ 150", "promote", "→ 1.5"):
        assert text in changed.partition("<h2>Changes</h2>")[2], text

    assert "nightly is paused." in visitor.send(changed, "/ui/schedules/nightly/pause").text
    gone = visitor.send(visitor.open("/schedules/nightly"), "/ui/schedules/nightly/delete")
    assert "The schedule nightly is deleted" in gone.text
    assert 'href="/ui/schedules/nightly"' not in gone.text
    visitor.open("/schedules/nightly", status=404)


def test_a_form_that_is_sent_twice_makes_one_schedule(visitor: Visitor, rows_with_bot: Rows) -> None:
    page = visitor.open("/schedules")
    sent = {"name": "nightly", "cron": "0 3 * * *"}
    first, again = (visitor.send(page, NEW, **sent) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.url == again.url


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({"name": "No Name"}, "name", "expected ^[a-z0-9]"),
        ({"cron": ""}, "when", "a schedule needs cron"),
        ({"cron": "* * *"}, "when", "has 3 fields"),
        ({"time_zone": "Mars/North"}, "when", "Mars/North"),
        ({"idle_hours": "3"}, "when", "expected cron (with time_zone) or idle_hours"),
        ({"new_trajectories": "many"}, "new_trajectories", "expected a whole number"),
        ({"idle_hours": "long", "cron": ""}, "idle_hours", "expected a number such as"),
        ({"training": "steps"}, "training", "expected key=value"),
        ({"training": "flies=1"}, "training", "flies"),
        ({"min_reward": "good"}, "min_reward", "expected a number such as"),
        ({"task": "gone"}, "task", "no task"),
    ],
)
def test_what_is_refused_stands_at_its_field_with_all_that_was_typed(
    visitor: Visitor, services: Services, rows_with_bot: Rows, fields: dict[str, str], place: str, says: str
) -> None:
    sent = {"name": "nightly", "cron": "0 3 * * *", "training": "steps=7", **fields}
    refused = visitor.send(visitor.open("/schedules"), NEW, **sent)
    assert refused.status_code in (404, 422)
    [(where, text)] = wrongs_of(refused.text).items()
    assert where == f"new-{place}"
    assert says in text
    kept = forms_of(refused.text)[NEW]
    assert {name: kept[name] for name in sent if name != "task"} == {n: v for n, v in sent.items() if n != "task"}
    with transaction(services.sessions) as session:
        assert session.query(Schedule).count() == 0


def test_a_refused_change_changes_nothing_and_keeps_what_was_typed(
    visitor: Visitor, services: Services, rows_with_bot: Rows
) -> None:
    page = _make(visitor)
    refused = visitor.send(page, "/ui/schedules/nightly", cron="", time_zone="", training="steps=9")
    assert refused.status_code == 422
    assert list(wrongs_of(refused.text)) == ["change-when"]
    assert forms_of(refused.text)["/ui/schedules/nightly"]["training"] == "steps=9"
    assert _stored(services).cron == "0 3 * * *"
    taken = visitor.send(visitor.open("/schedules"), NEW, name="nightly", cron="1 1 * * *")
    assert taken.status_code == 409
    assert "exists already" in wrongs_of(taken.text)["new-name"]


def test_each_time_that_it_was_due_says_what_came_of_it(
    visitor: Visitor, services: Services, rows_with_bot: Rows
) -> None:
    _make(visitor)
    with transaction(services.sessions) as session:
        schedule = session.query(Schedule).one()
        job = jobs.list_jobs(session, rows_with_bot.project_id, before=None, limit=1)[0]
        for number in range(60):
            due = utc_now() - timedelta(hours=60 - number)
            skipped = number % 2
            session.add(
                ScheduleRun(
                    schedule_id=schedule.id,
                    due_at=due,
                    at=due,
                    outcome="skipped" if skipped else "started",
                    missed=2 if skipped else 0,
                    new_trajectories=number,
                    up_to_seq=number,
                    job_id=None if skipped else job.id,
                    reason=f"only {number} are new" if skipped else "",
                )
            )
            session.flush()
    page = visitor.open("/schedules/nightly")
    assert "only 59 are new" in page
    assert f'href="/ui/jobs/{job.id}"' in page
    assert "only 9 are new" not in page
    [older] = re.findall(r'href="(\?cursor=[^"]+)">Older ones', page)
    assert "only 9 are new" in visitor.open(f"/schedules/nightly{older}")


def test_who_may_not_train_sees_schedules_and_changes_none(
    stranger: Visitor, visitor: Visitor, services: Services, project_id: uuid.UUID, rows_with_bot: Rows
) -> None:
    page = _make(visitor)
    sent = {path: forms_of(page)[path] for path in forms_of(page) if "schedules" in path}
    _, key = key_with(services, project_id, "read")
    stranger.sign_in(key)
    for path in ("/schedules", "/schedules/nightly"):
        assert [action for action in forms_of(stranger.open(path)) if "schedules" in action] == []
    csrf = forms_of(stranger.open("/schedules"))["/ui/sign-out"]["csrf"]
    for action, fields in [*sent.items(), (NEW, {"name": "x", "adapter": "bot", "task": "a", "cron": "0 3 * * *"})]:
        forced = stranger.http.post(action, data={**fields, "csrf": csrf})
        assert forced.status_code == 403, action
        assert "lacks the scope" in forced.text
    assert _stored(services).paused_at is None
