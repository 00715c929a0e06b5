"""Deletions in the dashboard: a dry run of a trajectory, a session or a user, a confirmation, and what is made good."""

import re
import uuid

import pytest

from registry.database import transaction
from registry.models import Deletion, Trajectory
from registry.trajectories.imports import import_batch, read_item
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with, wrongs_of
from tests.registry.conftest import TOKENS, Rows, chats
from tests.registry.routed import make_routed

PLAN, DELETE = "/ui/deletions/plan", "/ui/deletions"


@pytest.fixture
def users(rows: Rows) -> Rows:
    """Of anna 5 trajectories in the session s1, of ben 3; version 1 of `bot` learned task `a`, and is the champion."""
    make_routed(rows)
    _send(rows, chats(5, word="parcel", session_id="s1", metadata={"user": "anna"}))
    _send(rows, chats(3, word="bike", metadata={"user": "ben"}))
    rows.version("a")
    return rows


def _send(rows: Rows, items: list[dict[str, object]]) -> None:
    with transaction(rows.services.sessions) as session:
        read = [read_item(number, item) for number, item in enumerate(items)]
        import_batch(session, rows.project_id, read, default_task="a", tokens=TOKENS)


def _count(services: Services, user: str) -> int:
    with transaction(services.sessions) as session:
        return session.query(Trajectory).where(Trajectory.details["user"].astext == user).count()


@pytest.mark.parametrize(("scope", "identifier"), [("user", "anna"), ("session", "s1")])
def test_nothing_goes_before_its_number_was_seen(
    visitor: Visitor, services: Services, users: Rows, scope: str, identifier: str
) -> None:
    plan = visitor.send(visitor.open("/deletions"), PLAN, scope=scope, id=identifier, policy="keep")
    assert plan.status_code == 200
    assert identifier not in str(plan.url), "an address is kept by browsers and proxies"
    assert "<h1>Delete 5 trajectories for good?</h1>" in plan.text
    assert "Nothing is deleted yet" in plan.text
    assert "Delete 5 trajectories for good</button>" in plan.text
    assert _count(services, "anna") == 5
    done = visitor.send(plan.text, DELETE, reason="asked for it")
    assert re.fullmatch(r"/ui/deletions/[0-9a-f-]{36}", done.url.path)
    assert "5 trajectories deleted" in done.text
    assert "asked for it" in done.text
    assert identifier not in done.text.partition("<main")[2], "the record keeps a hash of it"
    assert (_count(services, "anna"), _count(services, "ben")) == (0, 3)
    assert f'href="{done.url.path}"' in visitor.open("/deletions")


def test_one_trajectory_is_named_by_its_id(visitor: Visitor, services: Services, users: Rows) -> None:
    with transaction(services.sessions) as session:
        found = session.query(Trajectory).where(Trajectory.details["user"].astext == "ben").first()
        assert found is not None
        identifier = str(found.id)
    plan = visitor.send(visitor.open("/deletions"), PLAN, scope="trajectory", id=identifier, policy="keep")
    assert "<h1>Delete 1 trajectory for good?</h1>" in plan.text
    visitor.send(plan.text, DELETE)
    assert _count(services, "ben") == 2


def test_a_stale_dry_run_is_refused_and_shown_anew(visitor: Visitor, services: Services, users: Rows) -> None:
    plan = visitor.send(visitor.open("/deletions"), PLAN, scope="user", id="anna", policy="keep")
    _send(users, chats(2, word="late", metadata={"user": "anna"}))
    refused = visitor.send(plan.text, DELETE, reason="a long reason")
    assert refused.status_code == 409
    assert "7 trajectories would be deleted, not 5 as in the dry run" in refused.text
    assert "<h1>Delete 7 trajectories for good?</h1>" in refused.text
    assert _count(services, "anna") == 7
    kept = forms_of(refused.text)[DELETE]
    assert (kept["expected"], kept["reason"]) == ("7", "a long reason")
    assert "7 trajectories deleted" in visitor.send(refused.text, DELETE).text
    assert _count(services, "anna") == 0


def test_a_form_that_names_no_number_deletes_nothing(visitor: Visitor, services: Services, users: Rows) -> None:
    plan = visitor.send(visitor.open("/deletions"), PLAN, scope="user", id="anna", policy="keep")
    for expected in ("", "all"):
        forged = visitor.http.post(DELETE, data={**forms_of(plan.text)[DELETE], "expected": expected})
        assert forged.status_code == 422, expected
    assert _count(services, "anna") == 5


@pytest.mark.parametrize(
    ("fields", "place", "says", "status"),
    [
        ({"id": "nobody"}, "id", "nothing of user", 404),
        ({"id": ""}, "id", "at least 1 character", 422),
        ({"scope": "trajectory", "id": "anna"}, "", "expected the id that the service gave it", 422),
        ({"scope": "everything"}, "scope", "Input should be", 422),
        ({"policy": "forget"}, "policy", "Input should be", 422),
    ],
)
def test_what_can_not_be_deleted_stands_at_its_field(
    visitor: Visitor, users: Rows, fields: dict[str, str], place: str, says: str, status: int
) -> None:
    sent = {"scope": "user", "id": "anna", "policy": "withdraw", **fields}
    refused = visitor.send(visitor.open("/deletions"), PLAN, **sent)
    assert refused.status_code == status
    if place:
        [(where, text)] = wrongs_of(refused.text).items()
        assert where == f"plan-{place}"
        assert says in text
    else:
        assert says in refused.text
    assert forms_of(refused.text)[PLAN]["id"] == sent["id"]


def test_a_deletion_says_how_what_learned_it_is_made_good(visitor: Visitor, services: Services, users: Rows) -> None:
    plan = visitor.send(visitor.open("/deletions"), PLAN, scope="user", id="anna", policy="retrain")
    assert "are trained anew without it" in plan.text
    assert "learned from it" in plan.text
    done = visitor.send(plan.text, DELETE)
    with transaction(services.sessions) as session:
        [step, *_] = session.query(Deletion).one().affected["versions"]
    assert f'href="/ui/adapters/bot/versions/{step["number"]}"' in done.text
    assert "<progress max=" in done.text
    assert "queued" in done.text
    assert re.search(r"0 of \d+ versions? are trained anew", done.text)
    assert re.search(r"\d+ queued", visitor.open("/deletions"))


def test_withdrawn_versions_and_moved_aliases_are_named(visitor: Visitor, users: Rows) -> None:
    with transaction(users.services.sessions) as session:
        newest = session.query(Trajectory).order_by(Trajectory.seq.desc()).first()
        assert newest is not None
    plan = visitor.send(visitor.open("/deletions"), PLAN, scope="user", id="anna", policy="withdraw")
    done = visitor.send(plan.text, DELETE, reason="asked")
    assert "were withdrawn" in done.text
    assert "No version is trained anew for it" in done.text


def test_who_is_no_admin_sees_and_forces_nothing(
    stranger: Visitor, visitor: Visitor, services: Services, project_id: uuid.UUID, users: Rows
) -> None:
    plan = visitor.send(visitor.open("/deletions"), PLAN, scope="user", id="anna", policy="keep").text
    _, key = key_with(services, project_id, "read", "write", "train", "promote")
    stranger.sign_in(key)
    for path in ("/deletions", f"/deletions/{uuid.uuid4()}"):
        assert "lacks the scope" in stranger.open(path, status=403)
    csrf = forms_of(stranger.open("/tasks"))["/ui/sign-out"]["csrf"]
    for action in (PLAN, DELETE):
        fields = {**forms_of(plan)[DELETE], "csrf": csrf}
        forced = stranger.http.post(action, data=fields)
        assert forced.status_code == 403
        assert "parcel" not in forced.text
        assert "5 trajectories" not in forced.text
    assert _count(services, "anna") == 5
