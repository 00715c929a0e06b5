"""Lists of versions, their states and moves over HTTP: page by page, with as many queries for many as for few."""

import uuid
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from api.app import create_app
from api.endpoints import scores as scores_module
from api.endpoints.scores import scores_of
from registry.adapters import get_adapter
from registry.database import transaction
from registry.gates.evaluations import record_evaluation, subject_of
from registry.models import Suite, VersionImportTask
from registry.serving.aliases import promote
from registry.settings import Settings
from registry.tasks import get_task
from registry.versions.ancestry import learned_tasks, lineage_tasks
from registry.versions.records import get_version, newest_versions
from registry.wiring import Services
from tests.api.stored import make_adapter, make_gate, make_scores, make_task, make_version
from tests.query_counts import record_queries

LISTS = ("versions", "states", "aliases/champion/history")


@pytest.fixture
def client(settings: Settings, api_key: str) -> Iterator[TestClient]:
    app = create_app(settings, serve_model=False)
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as opened:
        yield opened


@pytest.fixture
def bot(services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        make_adapter(session, project_id)
        for name in ("a", "b"):
            make_task(session, project_id, name)


def _grow(services: Services, project_id: uuid.UUID, count: int) -> None:
    """More champions, each trained from the one before, that passed their gate beside it."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, "bot", lock=True)
        for n in range(count):
            task = get_task(session, project_id, "ab"[n % 2])
            version = make_version(session, adapter, task)
            gate = make_gate(session, version, task, before=0.25, after=0.5)
            assert gate.passed
            make_scores(session, adapter, task, {version: 0.5})
            promote(session, adapter, "champion", version, actor="test", reason="")


@pytest.mark.parametrize("path", [*LISTS, "scores"])
def test_queries_do_not_grow_with_the_versions(
    client: TestClient, services: Services, project_id: uuid.UUID, bot: None, path: str
) -> None:
    counts = []
    for more in (2, 8):
        _grow(services, project_id, more)
        with record_queries(client.app.state.services.engine) as sent:  # type: ignore[attr-defined]  # our own app
            assert client.get(f"/v1/adapters/bot/{path}").status_code == 200
        counts.append(len(sent))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("path", LISTS)
def test_lists_come_page_by_page(
    client: TestClient, services: Services, project_id: uuid.UUID, bot: None, path: str
) -> None:
    _grow(services, project_id, 5)
    url, found, cursor = f"/v1/adapters/bot/{path}", [], None
    for size in (2, 2, 1):
        page = client.get(url, params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["data"]) == size
        found += page["data"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert found == client.get(url).json()["data"]
    assert [row["to_version" if "history" in path else "number"] for row in found] == [1, 2, 3, 4, 5]
    assert client.get(url, params={"cursor": "nonsense"}).json()["title"] == "invalid cursor"


def test_the_former_name_of_states(client: TestClient, services: Services, project_id: uuid.UUID, bot: None) -> None:
    _grow(services, project_id, 3)
    former, states = (client.get(f"/v1/adapters/bot/{path}", params={"limit": 2}) for path in ("standings", "states"))
    assert former.json() == states.json()
    paths = client.app.openapi()["paths"]  # type: ignore[attr-defined]  # our own app
    deprecated = {path.rpartition("/")[2] for path in paths if paths[path].get("get", {}).get("deprecated")}
    assert deprecated == {"standings"}


def test_scores_of_a_version_that_learned_several_tasks_elsewhere(
    client: TestClient, services: Services, project_id: uuid.UUID, bot: None
) -> None:
    """Here it is one version; it has learned them all at once."""
    _grow(services, project_id, 1)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, "bot")
        version, a, b = get_version(session, adapter, 1), *(get_task(session, project_id, name) for name in "ab")
        session.add_all(
            VersionImportTask(version_id=version.id, place=place, task_id=task.id) for place, task in enumerate((b, a))
        )
        make_scores(session, adapter, b, {version: 0.75, None: 0.25})
        make_scores(session, adapter, a, {version: 0.25, None: 0.0})
    found = client.get("/v1/adapters/bot/scores").json()
    assert found["tasks"] == ["b", "a"]
    assert (found["metrics"]["version"], found["metrics"]["acc"]) == (1, 0.5)


def test_scores_of_the_newest_alone_know_the_tasks_of_all(services: Services, project_id: uuid.UUID, bot: None) -> None:
    _grow(services, project_id, 5)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, "bot")
        whole, newest = scores_of(session, adapter), newest_versions(session, adapter, limit=2)[::-1]
        some = scores_of(session, adapter, newest)
        assert (some.tasks, list(some.versions)) == (whole.tasks, ["4", "5"])
        assert {number: whole.versions[number] for number in some.versions} == some.versions
        assert some.metrics is None, "the bare base was not measured"
        assert lineage_tasks(session, newest[-1]) == learned_tasks(session, newest[-1])
        all_of_them = newest_versions(session, adapter, limit=9)[::-1]
        assert scores_of(session, adapter, all_of_them) == whole


def test_metrics_have_a_history_over_the_versions(
    client: TestClient, services: Services, project_id: uuid.UUID, bot: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions 1 and 3 learn `a`, 2 and 4 `b`; 4 was not measured on `a`."""
    _grow(services, project_id, 4)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, "bot")
        one, two, three, four = newest_versions(session, adapter, limit=4)[::-1]
        a, b = (get_task(session, project_id, name) for name in "ab")
        make_scores(session, adapter, a, {None: 0.125, one: 0.875, two: 0.625, three: 0.75})
        make_scores(session, adapter, b, {None: 0.25, two: 0.75, three: 0.5, four: 1.0})
    found = client.get("/v1/adapters/bot/scores").json()
    shown = [(each["version"], each["acc"], each["bwt"], each["forgetting"]) for each in found["history"]]
    assert shown == [
        (1, 0.875, None, {"a": None}),
        (2, 0.6875, -0.25, {"a": 0.25, "b": None}),
        (3, 0.625, -0.1875, {"a": 0.125, "b": 0.25}),
    ]
    assert found["metrics"] == found["history"][-1]
    assert found["versions"]["2"]["a"] == {"score": 0.625, "items": 1, "left_out": 0, "suite": 3, "seconds": 0.1}
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, "bot")
        newest = newest_versions(session, adapter, limit=2)[::-1]
        some = scores_of(session, adapter, newest)
        assert [each.model_dump() for each in some.history] == found["history"], "ancestors count, shown or not"
        assert list(some.versions) == ["3", "4"]
        monkeypatch.setattr(scores_module, "_MOST", 3)
        assert scores_of(session, adapter, newest).history == [], "the chain is too long"
        assert [each.version for each in scores_of(session, adapter).history] == [1, 2, 3]
        monkeypatch.setattr(scores_module, "_MOST", 2)
        assert [each.version for each in scores_of(session, adapter).history] == [2, 3]


def test_items_that_were_left_out_are_counted_where_they_are(
    services: Services, project_id: uuid.UUID, bot: None
) -> None:
    with transaction(services.sessions) as session:
        adapter, task = get_adapter(session, project_id, "bot"), get_task(session, project_id, "a")
        make_scores(session, adapter, task, {None: 0.5})
        [suite] = session.scalars(select(Suite))
        items = [{"score": 1.0}, {"score": 0.0, "left_out": True}, {"score": 1.0, "left_out": False}]
        version = make_version(session, adapter, task)
        record_evaluation(session, subject_of(adapter, version), suite.id, score=1.0, items=items, seconds=0.1)
        found = scores_of(session, adapter).versions["1"]["a"]
        assert (found.items, found.left_out) == (3, 1)
