"""Tasks in the dashboard: made with any grader, one with its suites, versions and judge."""

import uuid

import pytest

from memgen.tasks.graders import grader_kinds
from registry.database import transaction
from registry.datasets.suites import freeze_suite
from registry.judging.judges import JudgeSettings, create_judge
from registry.models import Task
from registry.tasks import get_task
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with, wrongs_of
from tests.registry.conftest import Rows
from tests.registry.routed import make_routed

NEW = "/ui/tasks"


def _stored(services: Services, project_id: uuid.UUID, name: str) -> Task:
    with transaction(services.sessions) as session:
        return get_task(session, project_id, name)


def test_a_task_is_made_as_the_command_line_makes_one(
    visitor: Visitor, services: Services, project_id: uuid.UUID
) -> None:
    page = visitor.open("/tasks")
    for kind in grader_kinds():
        assert f'<option value="{kind}"' in page
    sent = {
        "name": "refunds",
        "description": "who gets <money> back",
        "grader": "regex",
        "options": "pattern=so it is (\\d+) euros\nignore_case=true",
        "holdout_share": "0.5",
        "shared_turns": "2",
    }
    made = visitor.send(page, NEW, **sent)
    assert made.url.path == "/ui/tasks/refunds"
    assert "The task refunds is made." in made.text
    assert "who gets &lt;money&gt; back" in made.text
    row = _stored(services, project_id, "refunds")
    assert row.grader == {"kind": "regex", "pattern": "so it is (\\d+) euros", "ignore_case": True}
    assert (row.holdout_share, row.shared_turns) == (0.5, 2)
    assert "The task refunds is there already." in visitor.send(page, NEW, **sent).text
    plain = visitor.send(page, NEW, name="plain")
    assert "likelihood" in plain.text
    assert _stored(services, project_id, "plain").holdout_share == services.settings.holdout_share


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({"name": "No"}, "name", "expected ^[a-z0-9]"),
        ({"holdout_share": "1.5"}, "holdout_share", "less than 1"),
        ({"holdout_share": "half"}, "holdout_share", "expected a number"),
        ({"shared_turns": "x"}, "shared_turns", "whole number"),
        ({"options": "tolerance"}, "options", "expected key=value"),
        ({"options": "flies=1"}, "graded", "flies"),
        ({"grader": "regex", "options": ""}, "graded", "pattern"),
    ],
)
def test_what_a_task_is_refused_for_stands_at_its_field(
    visitor: Visitor, services: Services, fields: dict[str, str], place: str, says: str
) -> None:
    sent = {"name": "refunds", "grader": "numeric", "options": "tolerance=0.5", "description": "two\nlines", **fields}
    refused = visitor.send(visitor.open("/tasks"), NEW, **sent)
    assert refused.status_code == 422
    [(where, text)] = wrongs_of(refused.text).items()
    assert where == f"new-{place}"
    assert says in text
    assert {name: text for name, text in forms_of(refused.text)[NEW].items() if name in sent} == sent
    with transaction(services.sessions) as session:
        assert session.query(Task).count() == 0


def test_another_task_of_the_same_name_is_refused_beside_the_name(visitor: Visitor, rows: Rows) -> None:
    rows.task("a")
    refused = visitor.send(visitor.open("/tasks"), NEW, name="a", grader="numeric")
    assert refused.status_code == 409
    assert "another grader" in wrongs_of(refused.text)["new-name"]


def test_a_task_shows_what_there_is_and_what_came_of_it(visitor: Visitor, rows: Rows) -> None:
    make_routed(rows)
    rows.task("b")
    with transaction(rows.services.sessions) as session:
        suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
        assert suite is not None
        items = suite.items
    page = visitor.open("/tasks/a")
    assert f"<td>a#1</td><td>{items}</td>" in page
    for number in range(1, 7):
        assert f'href="/ui/adapters/bot/versions/{number}"' in page
    assert "/ui/adapters/bot/versions/" not in visitor.open("/tasks/b")
    assert "<h1>There is no such page</h1>" in visitor.open("/tasks/nobody", status=404)


def test_a_judge_is_let_loose_on_a_task_and_called_back(visitor: Visitor, rows: Rows) -> None:
    rows.task("a")
    with transaction(rows.services.sessions) as session:
        settings = JudgeSettings()
        create_judge(
            session,
            rows.project_id,
            name="strict",
            kind="pointwise",
            model="base",
            rubric="Be good.",
            settings=settings,
        )
    page = visitor.open("/tasks/a")
    let = visitor.send(page, "/ui/tasks/a", judge="strict", judge_rewards="fill")
    assert "strict judges what comes for a from now on." in let.text
    assert forms_of(let.text)["/ui/tasks/a"]["judge"] == "strict"
    assert "counts where nobody else rewarded" in visitor.open("/tasks")
    assert "Nobody judges what comes for a" in visitor.send(let.text, "/ui/tasks/a", judge="").text
    refused = visitor.send(page, "/ui/tasks/a", judge="gone")
    assert refused.status_code == 404
    assert "gone" in wrongs_of(refused.text)["judge-judge"]


def test_who_may_read_alone_makes_no_task(
    stranger: Visitor, services: Services, project_id: uuid.UUID, rows: Rows
) -> None:
    rows.task("a")
    _, key = key_with(services, project_id, "read")
    stranger.sign_in(key)
    for path in ("/tasks", "/tasks/a"):
        assert list(forms_of(stranger.open(path))) == ["/ui/sign-out"]
    csrf = forms_of(stranger.open("/tasks"))["/ui/sign-out"]["csrf"]
    for action, fields in ((NEW, {"name": "x"}), ("/ui/tasks/a", {"judge": ""})):
        assert stranger.http.post(action, data={**fields, "csrf": csrf}).status_code == 403


def test_a_refused_form_shows_nothing_to_who_may_not_read(
    stranger: Visitor, services: Services, project_id: uuid.UUID, rows: Rows
) -> None:
    rows.task("a")
    _, key = key_with(services, project_id, "write")
    signed_in = stranger.sign_in(key)
    csrf = forms_of(signed_in.text)["/ui/sign-out"]["csrf"]
    refused = stranger.http.post(NEW, data={"name": "No", "grader": "exact", "csrf": csrf})
    assert refused.status_code == 422
    assert "That did not work" in refused.text
    assert 'href="/ui/tasks/a"' not in refused.text
