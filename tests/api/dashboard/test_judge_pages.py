"""Judges and feedback in the dashboard: who says what something was worth, and how that is asked for."""

import re
import uuid
from dataclasses import fields

import pytest

from registry import jobs
from registry.database import transaction
from registry.job_requests import JudgeTrajectories
from registry.judging.judges import JudgeSettings, get_judge
from registry.models import Job, Judge, Trajectory
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with, wrongs_of
from tests.registry.conftest import Rows
from tests.registry.routed import Routed, make_routed

NEW, GIVE = "/ui/judges", "/ui/feedback"
STRICT = {"name": "strict", "kind": "pointwise", "model": "base", "rubric": "Be <good>.\nAlways."}


@pytest.fixture
def routed(rows: Rows) -> Routed:
    return make_routed(rows)


def test_a_judge_is_made_bounded_and_let_loose(visitor: Visitor, services: Services, routed: Routed) -> None:
    page = visitor.open("/judges")
    made = visitor.send(page, NEW, **STRICT, scale="5", temperature="", too_long="refuse")
    assert "The judge strict is made." in made.text
    assert "Be &lt;good&gt;." in made.text
    with transaction(services.sessions) as session:
        judge = get_judge(session, routed.rows.project_id, "strict")
        assert judge.rubric.split() == ["Be", "<good>.", "Always."]
        usual = {each.name: each.default for each in fields(JudgeSettings)}
        expected = usual | {"scale": 5, "too_long": "refuse"}
        assert {name: getattr(judge, name) for name in expected} == expected
    bounded = visitor.send(made.text, "/ui/judges/strict", daily_calls="7")
    assert "strict may make 7 calls in 24 hours by itself." in bounded.text
    queued = visitor.send(bounded.text, "/ui/judges/strict/run", task="a", max_calls="9", unrewarded="yes")
    assert "The judging is queued." in queued.text
    with transaction(services.sessions) as session:
        job = session.get_one(Job, uuid.UUID(queued.url.path.rpartition("/")[2]))
        request = jobs.request_as(job, JudgeTrajectories)
    assert (request.judge, request.task, request.max_calls, request.unrewarded) == ("strict", "a", 9, True)
    busy = visitor.send(visitor.open("/judges/strict"), "/ui/judges/strict/run", task="a")
    assert busy.status_code == 409
    assert 'class="problem"' in busy.text


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"name": "No"}, "name"),
        ({"model": "nobody"}, "model"),
        ({"model": "bot@99"}, "model"),
        ({"scale": "1000"}, "scale"),
        ({"scale": "x"}, "scale"),
        ({"kind": "odd"}, "kind"),
    ],
)
def test_a_judge_that_can_not_be_is_refused_at_its_field(
    visitor: Visitor, services: Services, routed: Routed, sent: dict[str, str], place: str
) -> None:
    wanted = {**STRICT, "rubric": "Be good.", **sent}
    refused = visitor.send(visitor.open("/judges"), NEW, **wanted)
    assert refused.status_code in (404, 422)
    assert list(wrongs_of(refused.text)) == [f"new-{place}"]
    kept = forms_of(refused.text)[NEW]
    assert {name: kept[name] for name in wanted if name != "kind"} == {n: v for n, v in wanted.items() if n != "kind"}
    with transaction(services.sessions) as session:
        assert session.query(Judge).count() == 0


def test_feedback_is_given_and_found(visitor: Visitor, services: Services, routed: Routed) -> None:
    answer = routed.ask("s1")
    with transaction(services.sessions) as session:
        trajectory = str(session.query(Trajectory.id).first()[0])  # type: ignore[index]  # there are 40
    page = visitor.open("/feedback")
    said = visitor.send(page, GIVE, of="completion", id=answer, reward="0.25", comment="too slow &<")
    assert "The completion has its reward." in said.text
    assert "too slow &amp;&lt;" in said.text
    visitor.send(page, GIVE, of="trajectory", id=trajectory, reward="1", source="grader", comment="right")
    for query, count in (
        ("", 2),
        ("?search=slow", 1),
        ("?source=grader", 1),
        ("?search=slow&source=grader", 0),
        (f"?of=completion&id={answer}", 1),
        (f"?of=trajectory&id={trajectory}", 1),
        ("?of=session&id=s1", 1),
    ):
        assert visitor.open(f"/feedback{query}").count("<td>key ") == count, query
    assert f'href="/ui/trajectories/{trajectory}"' in visitor.open("/feedback?source=grader")


@pytest.mark.parametrize(
    ("sent", "place", "status"),
    [
        ({"reward": "2"}, "reward", 422),
        ({"reward": ""}, "reward", 422),
        ({"reward": "good"}, "reward", 422),
        ({"id": ""}, "id", 422),
        ({"id": "chatcmpl-gone"}, "id", 404),
        ({"of": "run", "id": "no-id"}, "id", 404),
        ({"of": "trajectory", "id": str(uuid.UUID(int=7))}, "id", 404),
    ],
)
def test_feedback_that_is_refused_says_so_at_its_field(
    visitor: Visitor, routed: Routed, sent: dict[str, str], place: str, status: int
) -> None:
    wanted = {"of": "completion", "id": "x", "reward": "0.5", "comment": "a long comment", **sent}
    refused = visitor.send(visitor.open("/feedback"), GIVE, **wanted)
    assert refused.status_code == status
    assert list(wrongs_of(refused.text)) == [f"give-{place}"]
    assert forms_of(refused.text)[GIVE]["comment"] == "a long comment"


def test_another_reward_of_the_same_source_is_refused(visitor: Visitor, routed: Routed) -> None:
    answer = routed.ask("s1")
    page = visitor.open("/feedback")
    visitor.send(page, GIVE, of="completion", id=answer, reward="0.25")
    assert visitor.send(page, GIVE, of="completion", id=answer, reward="0.25").status_code == 200
    refused = visitor.send(page, GIVE, of="completion", id=answer, reward="1")
    assert refused.status_code == 409
    assert list(wrongs_of(refused.text)) == ["give-reward"]


def test_who_may_read_alone_judges_nothing(
    stranger: Visitor, visitor: Visitor, services: Services, project_id: uuid.UUID, routed: Routed
) -> None:
    visitor.send(visitor.open("/judges"), NEW, **STRICT)
    _, key = key_with(services, project_id, "read")
    stranger.sign_in(key)
    pages = [stranger.open(path) for path in ("/judges", "/judges/strict", "/feedback")]
    assert not any(re.search(r'method="post" action="/ui/(judges|feedback)', page) for page in pages)
    csrf = forms_of(pages[0])["/ui/sign-out"]["csrf"]
    for action in (NEW, "/ui/judges/strict", "/ui/judges/strict/run", GIVE):
        assert stranger.http.post(action, data={"csrf": csrf, "name": "x"}).status_code == 403, action
