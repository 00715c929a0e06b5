"""Adapters in the dashboard: made, their settings changed with a reason, gates run late, triggers trained."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from registry import jobs
from registry.adapters import change_adapter, get_adapter
from registry.database import transaction
from registry.job_requests import TrainTrigger
from registry.models import Adapter, Job
from registry.settings import Settings
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with, wrongs_of
from tests.registry.conftest import Rows
from tests.registry.routed import make_routed

NEW, SET = "/ui/adapters", "/ui/adapters/bot/settings"


@pytest.fixture
def app_client(settings: Settings, tiny_base: Path) -> Iterator[TestClient]:
    """Over a base whose files are there: an adapter is bound to it."""
    here = settings.model_copy(update={"base_model": str(tiny_base)})
    with TestClient(create_app(here, serve_model=False), follow_redirects=True) as opened:
        yield opened


def _stored(services: Services, project_id: uuid.UUID, name: str) -> Adapter:
    with transaction(services.sessions) as session:
        return get_adapter(session, project_id, name)


def _job_of(services: Services, answer: httpx.Response) -> Job:
    with transaction(services.sessions) as session:
        return session.get_one(Job, uuid.UUID(answer.url.path.rpartition("/")[2]))


def test_an_adapter_is_made_as_the_command_line_makes_one(
    visitor: Visitor, services: Services, project_id: uuid.UUID
) -> None:
    page = visitor.open("/adapters")
    sent = {
        "name": "helper",
        "description": "who <helps>",
        "strategy": "replay",
        "memory": "latents=8 trigger=lora",
        "gate_margin": "0.03",
        "gate_rule": "non_inferior",
        "retry_replay_share": "0.5",
    }
    made, again = (visitor.send(page, NEW, **sent) for _ in range(2))
    assert made.url.path == again.url.path == "/ui/adapters/helper", "a form that is sent twice makes one"
    assert "who &lt;helps&gt;" in made.text
    row = _stored(services, project_id, "helper")
    assert (row.memory["latents"], row.memory["trigger"]) == (8, "lora")
    assert (row.gate_margin, row.gate_rule, row.retry_replay_share) == (0.03, "non_inferior", 0.5)
    assert (row.gate_gain, row.gate_settled, row.canary_share) == (True, False, 0.05)


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({"name": "base"}, "name", "reserved"),
        ({"memory": "flies=1"}, "memory", "flies"),
        ({"memory": "trigger=never"}, "memory", "no memory would be woven"),
        ({"replay_share": "2"}, "replay_share", "expected [0, 1)"),
        ({"canary_share": "0.9"}, "canary_share", "at most 0.5"),
        ({"gate_margin": "much"}, "gate_margin", "expected a number"),
    ],
)
def test_what_an_adapter_is_refused_for_stands_at_its_field(
    visitor: Visitor, fields: dict[str, str], place: str, says: str
) -> None:
    sent = {"name": "helper", "memory": "latents=8", **fields}
    refused = visitor.send(visitor.open("/adapters"), NEW, **sent)
    assert refused.status_code == 422
    [(where, text)] = wrongs_of(refused.text).items()
    assert where == f"new-{place}".replace(".", "-")
    assert says in text
    assert {name: text for name, text in forms_of(refused.text)[NEW].items() if name in sent} == sent
    assert "helper" not in visitor.open("/adapters").partition("<form")[0]


def test_settings_are_changed_with_a_reason_and_the_history_tells(
    visitor: Visitor, services: Services, rows: Rows
) -> None:
    make_routed(rows)
    page = visitor.open("/adapters/bot/settings")
    assert "It is as it was made." in page
    form = {**forms_of(page)[SET], "gate_policy": "manual", "retry_replay_share": "0.4", "reason": "we read now"}
    del form["gate_gain"]  # as a browser sends a box that is not checked
    changed = visitor.http.post(SET, data=form)
    assert "The settings of bot are changed." in changed.text
    row = _stored(services, rows.project_id, "bot")
    assert (row.gate_policy, row.retry_replay_share, row.gate_gain, row.gate_margin) == ("manual", 0.4, False, 0.05)
    history = changed.text.partition("<h2>Changes</h2>")[2]
    assert history.count("we read now") == 3
    for setting in ("gate policy", "retry replay share", "gate gain"):
        assert f"<td>{setting}</td>" in history
    back = visitor.send(changed.text, SET, retry_replay_share="")
    assert "<td>none</td>" in back.text.partition("<h2>Changes</h2>")[2]
    assert _stored(services, rows.project_id, "bot").retry_replay_share is None


def test_a_page_that_is_out_of_date_takes_nothing_back(visitor: Visitor, services: Services, rows: Rows) -> None:
    make_routed(rows)
    stale = visitor.open("/adapters/bot/settings")
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        change_adapter(session, adapter, {"gate_margin": 0.01}, actor="ben", reason="stricter")
    visitor.send(stale, SET, gate_policy="manual")
    row = _stored(services, rows.project_id, "bot")
    assert (row.gate_policy, row.gate_margin) == ("manual", 0.01)


def test_a_refused_setting_changes_none(visitor: Visitor, services: Services, rows: Rows) -> None:
    make_routed(rows)
    sent = {"gate_policy": "manual", "gate_level": "1.5", "reason": "a long reason"}
    refused = visitor.send(visitor.open("/adapters/bot/settings"), SET, **sent)
    assert refused.status_code == 422
    assert "gate_level 1.5" in refused.text
    kept = forms_of(refused.text)[SET]
    assert {name: kept[name] for name in sent} == sent
    assert _stored(services, rows.project_id, "bot").gate_policy == "automatic"
    assert "The settings of bot are changed." in visitor.send(refused.text, SET, gate_level="0.1").text
    assert _stored(services, rows.project_id, "bot").gate_policy == "manual"


def test_a_gate_is_run_for_a_version_that_nobody_judged(visitor: Visitor, services: Services, rows: Rows) -> None:
    make_routed(rows)
    assert "/gate" not in " ".join(forms_of(visitor.open("/adapters/bot/versions/2")))
    page, action = visitor.open("/adapters/bot/versions/6"), "/ui/adapters/bot/versions/6/gate"
    refused = visitor.send(page, action)
    assert refused.status_code == 409, "its own job has not ended"
    with transaction(services.sessions) as session:
        for job in session.query(Job):
            jobs.request_cancel(session, rows.project_id, job.id)
    queued = visitor.send(page, action)
    assert "The gate of bot@6 is queued." in queued.text
    assert _job_of(services, queued).kind == "evaluate"
    assert visitor.send(page, action).status_code == 409


def test_a_trigger_is_trained(visitor: Visitor, services: Services, rows: Rows) -> None:
    make_routed(rows)
    page = "/adapters/bot/versions/1"
    action = f"/ui{page}/trigger"
    assert action not in forms_of(visitor.open(page)), "a trigger that always weaves has nothing to learn"
    with transaction(services.sessions) as session:
        get_adapter(session, rows.project_id, "bot").memory = {"trigger": "lora"}
    sent = {"tasks": "a", "steps": "7", "settings": "penalty=0.05"}
    queued = visitor.send(visitor.open(page), action, **sent)
    assert "The training of the trigger is queued." in queued.text
    with transaction(services.sessions) as session:
        request = jobs.request_as(_job_of(services, queued), TrainTrigger)
    assert (request.tasks, request.parent, request.promote) == (("a",), 1, True)
    assert (request.training["steps"], request.training["penalty"]) == (7, 0.05)
    for fields, place in (
        ({"tasks": "a gone"}, "tasks"),
        ({"steps": "x"}, "steps"),
        ({"settings": "flies"}, "settings"),
    ):
        refused = visitor.send(visitor.open(page), action, **{**sent, **fields})
        assert refused.status_code in (404, 422), fields
        assert list(wrongs_of(refused.text)) == [f"trigger-{place}"], fields
    for fields in ({"settings": "flies=1"}, {"tasks": "", "environment": "nowhere"}):
        refused = visitor.send(visitor.open(page), action, **{**sent, **fields})
        assert refused.status_code == 422, fields
        assert 'class="problem"' in refused.text
        kept = forms_of(refused.text)[action]
        assert {name: kept[name] for name in fields} == fields


def test_scopes_decide_who_changes_what(
    stranger: Visitor, visitor: Visitor, services: Services, project_id: uuid.UUID, rows: Rows
) -> None:
    make_routed(rows)
    sent = forms_of(visitor.open("/adapters/bot/settings"))[SET]
    _, key = key_with(services, project_id, "read", "train")
    stranger.sign_in(key)
    page = stranger.open("/adapters/bot/settings")
    assert SET not in forms_of(page)
    assert "Gate margin" in page, "who may not change them may read them"
    csrf = forms_of(page)["/ui/sign-out"]["csrf"]
    assert stranger.http.post(SET, data={**sent, "csrf": csrf, "gate_margin": "0.5"}).status_code == 403
    _, key = key_with(services, project_id, "read", "promote")
    stranger.sign_in(key)
    page = stranger.open("/adapters")
    assert NEW not in forms_of(page)
    assert "/ui/adapters/bot/versions/6/gate" not in forms_of(stranger.open("/adapters/bot/versions/6"))
    csrf = forms_of(page)["/ui/sign-out"]["csrf"]
    for action in (NEW, "/ui/adapters/bot/versions/6/gate", "/ui/adapters/bot/versions/1/trigger"):
        assert stranger.http.post(action, data={"name": "x", "csrf": csrf}).status_code == 403
