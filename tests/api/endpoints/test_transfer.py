"""Archives over HTTP: who may take one, and that whatever comes in is refused by its field, never by a crash."""

import json
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from api.endpoints.transfer import import_version
from api.http.file_once import FileOnce
from api.http.problems import status_of
from memgen.errors import MemgenError
from registry.database import transaction
from registry.errors import RegistryError
from registry.keys import Principal, create_key
from registry.models import SCOPES, Version
from registry.settings import Settings
from registry.tasks import find_tasks
from tests.api.live_api import serve
from tests.registry.conftest import Rows, chats
from tests.registry.deleting import delete
from tests.registry.stored_versions import (
    beside,
    elsewhere,
    export_version,
    make_stored_version,
    purge_versions,
    retar,
    stored_keys,
    trajectories,
)

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def bot(services: Any, project_id: uuid.UUID) -> Rows:
    """`bot@1` of task a, and its child `bot@2` of task b."""
    rows = Rows(services, project_id)
    with transaction(services.sessions) as session:
        rows.make_adapter(session)
    rows.task("a", [*chats(30), *chats(10, word="secret", session_id="s1")])
    rows.task("b")
    make_stored_version(rows, "b", parent=make_stored_version(rows, "a"))
    return rows


@pytest.fixture
def version(bot: Rows) -> Version:
    with transaction(bot.services.sessions) as session:
        return session.query(Version).filter(Version.number == 2).one()


@pytest.fixture
def archive(bot: Rows, version: Version, tmp_path: Path) -> Path:
    return export_version(bot, version, tmp_path / "two.tar")


@pytest.fixture
def api(settings: Settings, bot: Rows, api_key: str) -> Iterator[httpx.Client]:
    with (
        serve(settings) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30) as client,
    ):
        yield client


def _send(api: httpx.Client, adapter: str, path: Path) -> httpx.Response:
    return api.post(f"/v1/adapters/{adapter}/versions/import", content=path.read_bytes())


def _edited(path: Path, target: Path, edit: Edit) -> Path:
    def change(files: dict[str, bytes]) -> None:
        described = json.loads(files["version.json"])
        edit(described)
        files["version.json"] = json.dumps(described).encode()

    return retar(path, target, change)


def test_weights_leave_with_scope_promote_alone(api: httpx.Client, bot: Rows) -> None:
    answers = {}
    for scope in SCOPES:
        with transaction(bot.services.sessions) as session:
            _, key = create_key(session, bot.project_id, scope, [scope])
        sent = {"Authorization": f"Bearer {key}"}
        answers[scope] = api.get("/v1/adapters/bot/versions/2/export", headers=sent).status_code
    assert {scope for scope, status in answers.items() if status == 200} == {"promote", "admin"}
    assert set(answers.values()) == {200, 403}
    history = api.get("/v1/adapters/bot/versions/2/history").json()["data"]
    assert sorted(change["actor"] for change in history) == ["key admin", "key promote"]


def test_what_was_withdrawn_neither_leaves_nor_comes_in(api: httpx.Client, bot: Rows, archive: Path) -> None:
    victim = next(row for row in trajectories(bot, held_out=False) if row.session_id == "s1")
    delete(bot, "trajectory", str(victim.id), "withdraw")
    beside(bot, "copy")
    bot.services.store.delete_folder(f"projects/{bot.project_id}/artifacts")
    left = api.get("/v1/adapters/bot/versions/2/export")
    assert (left.status_code, left.json()["type"]) == (403, "urn:memgen:problem:version_not_servable")
    assert "bot@2 was withdrawn at" in left.json()["detail"]
    for adapter in ("bot", "copy"):
        refused = _send(api, adapter, archive)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:memgen:problem:learned_deleted")
        assert "it was trained on data that was deleted" in refused.json()["detail"]
    assert not stored_keys(bot, f"projects/{bot.project_id}/artifacts/"), "refused before its bytes were stored"


def test_what_comes_and_goes_lies_in_the_home_and_is_gone_after(
    api: httpx.Client, bot: Rows, archive: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the client goes away in the middle."""
    assert api.get("/v1/adapters/bot/versions/2/export").status_code == 200
    assert _send(api, "bot", archive).status_code == 202
    assert [entry for entry in settings.scratch_dir.rglob("*") if entry.is_file() and entry.suffix != ".lock"] == []
    folder = next(entry for entry in settings.scratch_dir.iterdir() if entry.is_dir())
    path = folder / "sent.tar"
    path.write_bytes(b"data")

    async def gone(message: Any) -> None:
        raise OSError("the client went away")

    async def wait() -> Any:
        await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises((OSError, ExceptionGroup, ClientDisconnect)):
        anyio.run(lambda: FileOnce(path)(scope, wait, gone))
    assert not path.exists()


def test_a_purged_version_is_restored(api: httpx.Client, bot: Rows, archive: Path, version: Version) -> None:
    purge_versions(bot, 2)
    assert "import its archive" in api.get("/v1/adapters/bot/versions/2/export").json()["detail"]
    told = [_send(api, "bot", archive).json() for _ in range(2)]
    assert [(each["number"], each["created"], each["restored"]) for each in told] == [
        (2, False, True),
        (2, False, False),
    ]
    assert api.get("/v1/adapters/bot/versions/2/export").content == archive.read_bytes()
    kinds = [change["kind"] for change in api.get("/v1/adapters/bot/versions/2/history").json()["data"]]
    assert kinds == ["purged", "restored", "exported"]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda d: d["lineage"][-1].update(task="zzz"), "lineage.1.task is 'zzz'; expected one of its `tasks`: a, b"),
        (lambda d: d.update(memory=[]), "memory is []; expected a valid dictionary"),
        (lambda d: d["tasks"].append({"name": "q"}), "tasks.2.grader is missing; expected"),
        (lambda d: d["tasks"].append(d["tasks"][0]), "tasks.2.name is 'a' again; expected each task once"),
        (lambda d: d["lineage"][-1].pop("dataset"), "lineage.1.dataset is missing; expected"),
        (lambda d: d.update(lineage=[1]), "lineage.0 is 1; expected a valid dictionary"),
        (lambda d: d["lineage"][0].update(dataset_hash="../../x"), "lineage.0.dataset_hash is '../../x'; expected"),
        (lambda d: d["lineage"][0].update(artifact_hash="A" * 64), "lineage.0.artifact_hash is 'AAAA"),
        (lambda d: d["lineage"].pop(), "the lineage ends with artifact_hash"),
        (lambda d: d.update(verdict=7), "verdict is 7; expected 'unchecked', 'waiting', 'passed' or 'rejected'"),
        (lambda d: d.update(format=[]), "the archive has format []; this service reads 1"),
        (lambda d: d.update(format=True), "format is True; expected a valid integer"),
        (lambda d: d.update(artifact_hash=7), "artifact_hash is 7; expected a valid string"),
        (lambda d: d.update(code_version=None), "code_version is None; expected a valid string"),
        (lambda d: d.update(adapter="a\0b"), "holds the NUL character, can't be stored"),
        (lambda d: d["memory"].update(a="\ud800"), "holds half of a surrogate pair"),
        (lambda d: d["tasks"][0].update(holdout_share=2), "tasks.0.holdout_share is 2; expected less than 1"),
        (lambda d: d.update(number=0), "number is 0; expected greater than or equal to 1"),
        (lambda d: d.update(parts={"a": "../x"}), "parts.a is '../x'; expected"),
        (lambda d: [task.update(name="new") for task in d["tasks"]], "expected each task once"),
    ],
)
def test_a_malformed_description_is_refused_by_its_field(
    api: httpx.Client, bot: Rows, archive: Path, tmp_path: Path, edit: Edit, told: str
) -> None:
    beside(bot, "copy")
    refused = _send(api, "copy", _edited(archive, tmp_path / "broken.tar", edit))
    assert refused.status_code == 422, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "urn:memgen:problem:invalid_archive"
    assert told in refused.json()["detail"]


def test_a_task_with_a_grader_that_nobody_knows_is_not_made(
    api: httpx.Client, bot: Rows, archive: Path, tmp_path: Path
) -> None:
    there = beside(bot, "copy")

    def rename(described: dict[str, Any]) -> None:
        for place, grader in ((0, {"kind": "exact", "ignore_case": True}), (1, {"kind": "magic"})):
            described["tasks"][place].update(name=f"new-{place}", grader=grader)
            described["lineage"][place]["task"] = f"new-{place}"

    refused = _send(api, "copy", _edited(archive, tmp_path / "broken.tar", rename))
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:memgen:problem:unknown_grader")
    with transaction(there.services.sessions) as session:
        assert find_tasks(session, there.project_id, ["new-0", "new-1"]) == {}


def test_the_artifacts_own_files_are_read_as_strictly(
    api: httpx.Client, bot: Rows, archive: Path, tmp_path: Path
) -> None:
    def deep(files: dict[str, bytes]) -> None:
        files["artifact/manifest.json"] = b'{"a":' * 100_000 + b"1" + b"}" * 100_000

    refused = _send(api, "bot", retar(archive, tmp_path / "deep.tar", deep))
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:memgen:problem:invalid_archive")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [path, *(found for key in keys for found in _paths(value[key], (*path, key)))]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["", "\0", "\ud800", "../../x", "0" * 64, "A" * 64, "a\n", "isolated", "passed", "likelihood"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(data=st.data())
def test_no_description_crashes_the_import(bot: Rows, archive: Path, data: st.DataObject) -> None:
    """The endpoint's own steps, into a fresh project each time, so that nothing is known from the time before."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile("version.json")
        assert file is not None
        described = json.load(file)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, key = data.draw(st.sampled_from([path for path in _paths(described) if path]))
        owner = described
        for step in parents:
            owner = owner[step]
        if data.draw(st.booleans()):
            owner[key] = data.draw(values)
        else:
            del owner[key]
        if not _paths(described)[1:]:
            break
    there = elsewhere(bot)
    caller = Principal(there.project_id, uuid.uuid4(), "test", frozenset(["train"]))
    with TemporaryDirectory() as name:

        def replace(files: dict[str, bytes]) -> None:
            files["version.json"] = json.dumps(described).encode()

        broken = retar(archive, Path(name) / "broken.tar", replace)
        refused: RegistryError | MemgenError | None = None
        try:
            import_version(there.services, caller, "bot", broken, Path(name) / "read")
        except (RegistryError, MemgenError) as error:
            refused = error
    if refused is not None:
        assert status_of(refused) < 500, refused
        assert str(refused).encode(), "what can be sent as an answer"
