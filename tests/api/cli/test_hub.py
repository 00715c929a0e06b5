"""`memgen push` and `pull`: by a folder in this process, and by a stand-in of the hub with the hub's real library."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.database import transaction
from registry.models import Job, Version
from registry.wiring import Services
from tests.api.cli.invoking import Done, fail, memgen, succeed
from tests.hub_server import HubServer, run_hub
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import make_stored_version, purge_versions

TOKEN = "hf_very-secret"
REPOSITORY = "acme/support-bot"


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> Rows:
    """`bot@1` of task a, and its child `bot@2` of task b; and `copy`, an adapter for the same base."""
    rows = Rows(services, project_id)
    for name in ("bot", "copy"):
        with transaction(services.sessions) as session:
            Rows(services, project_id, name).make_adapter(session)
    rows.task("a", chats(30))
    rows.task("b")
    make_stored_version(rows, "b", parent=make_stored_version(rows, "a"))
    return rows


@pytest.fixture
def folder(bot: Rows, tmp_path: Path) -> Path:
    """Where `bot@2` was pushed to."""
    succeed("push", "bot@2", str(tmp_path / "pushed"), "--license", "apache-2.0", "--base-model", "acme/tiny")
    return tmp_path / "pushed"


def _metadata(card: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return loaded


def test_a_version_goes_to_a_folder_and_comes_back_through_the_gate(bot: Rows, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "artifact", "version.json"]
    pulled = succeed("pull", str(folder), "copy", "--json").document
    assert (pulled["adapter"], pulled["number"], pulled["origin"], pulled["created"]) == ("copy", 1, "bot@2", True)
    with transaction(bot.services.sessions) as session:
        job = session.get_one(Job, uuid.UUID(pulled["check_job"]))
        assert (job.kind, job.state) == ("check_import", "queued")
        mine, theirs = (
            session.query(Version).filter_by(number=number).filter(Version.adapter.has(name=name)).one()
            for name, number in (("bot", 2), ("copy", 1))
        )
        assert mine.artifact_hash == theirs.artifact_hash
    listed = succeed("versions", "copy", "--json").document["data"]
    assert [version["verdict"] for version in listed] == ["unchecked"]
    assert "(403 gate_not_passed)" in fail("promote", "copy", "1")
    again = succeed("pull", str(folder), "copy")
    assert again.out == "bot@2 is copy@1 here, as before.\n"


def test_the_card_says_what_it_is_made_for_and_what_it_scored(bot: Rows, folder: Path) -> None:
    card = (folder / "README.md").read_text()
    described = json.loads((folder / "version.json").read_text())
    found = _metadata(card)
    assert (found["base_model"], found["base_model_relation"], found["license"]) == (
        "acme/tiny",
        "adapter",
        "apache-2.0",
    )
    assert found["memgen"] | {"base_identity": None} == {
        "adapter": "bot",
        "version": 2,
        "base_revision": "r1",
        "base_identity": None,
        "manifest_sha256": described["artifact_hash"],
        "verdict": "passed",
    }
    rows = {"# bot@2", "| base |  |  |", "| 2 |  | 100.0% |", "| b | 0.0% | 100.0% | +100.0 | passed |"}
    assert rows <= set(card.splitlines()), card
    assert "| 1 | a |" in card
    assert "| 2 | b |" in card
    assert "3 steps, loss 2 at first and 0.5 at the end." in card
    assert "`apache-2.0`, for the memory" in card
    succeed("push", "bot@1", str(folder), "--base-model", "acme/tiny")
    card = (folder / "README.md").read_text()
    assert "license" not in _metadata(card)
    assert "named none" in card
    assert "| 2 | b |" not in card, "what came after it is not its own"


def _drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def _swap(old: str, new: str, name: str = "README.md") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop("version.json"), "there is no version.json"),
        (_drop("README.md"), "README.md can't be read"),
        (_write("README.md", b"# bot"), "README.md has no metadata `memgen`"),
        (_write("README.md", b"---\nmemgen: [\n---\n"), "README.md can't be read"),
        (_swap("manifest_sha256: ", "manifest_sha256: 0"), "README.md says memgen.manifest_sha256 "),
        (_swap("base_revision: r1", "base_revision: r2"), "README.md says memgen.base_revision 'r2'"),
        (_drop("artifact/memory.safetensors"), "missing ['memory.safetensors']"),
        (_write("artifact/memory.safetensors", b"other"), "artifact/memory.safetensors has sha256 "),
        (
            _write("artifact/weaver.bin", b"\x80\x04"),
            "there are ['artifact/weaver.bin']; expected .safetensors and .json",
        ),
        (_write("artifact/more.json", b"{}"), "unexpected ['more.json']"),
        (_swap('"base_revision": "r1"', '"base_revision": "r2"', "version.json"), "base revision r1"),
    ],
)
def test_what_was_changed_is_refused_before_it_is_registered(
    bot: Rows, folder: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(folder)
    assert says in fail("pull", str(folder), "copy")
    assert succeed("versions", "list", "copy", "--json").document == {"data": []}


def test_a_folder_that_is_none_or_has_something_else(bot: Rows, tmp_path: Path) -> None:
    assert "is no folder" in fail("pull", str(tmp_path / "nowhere"), "copy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert "is not empty" in fail("push", "bot@2", str(tmp_path / "mine"))
    assert "is a file" in fail("push", "bot@2", str(tmp_path / "mine" / "thesis.tex"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_version_is_named_by_its_number_or_an_alias(bot: Rows, tmp_path: Path) -> None:
    target = str(tmp_path / "pushed")
    succeed("promote", "bot", "2")
    assert succeed("push", "bot@champion", target, "--json").document["version"] == 2
    assert "no alias 'nobody'; there are: champion" in fail("push", "bot@nobody", target)
    assert "(404 version_not_found)" in fail("push", "bot@9", target)
    assert memgen("push", "bot", target).code == 2


def test_the_adapter_is_made_as_the_version_needs_it(bot: Rows, folder: Path) -> None:
    assert "(404 adapter_not_found)" in fail("pull", str(folder), "new")
    refused = fail("pull", str(folder), "new", "--create")
    assert "(422 invalid_archive)" in refused, "this API serves another base than these rows were made for"
    [made] = [each for each in succeed("adapter", "list", "--json").document["data"] if each["name"] == "new"]
    assert (made["strategy"], made["description"]) == ("replay", "From bot@2.")


def test_nothing_of_it_stays_in_the_scratch_folder(bot: Rows, folder: Path, no_service: Path) -> None:
    succeed("pull", str(folder), "copy")
    assert [path for path in (no_service / "tmp").rglob("*") if path.is_file()] == []


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with run_hub() as running:
        running.tokens.add(TOKEN)
        yield running


@pytest.fixture
def at_hub(hub: HubServer, bot: Rows, tmp_path: Path) -> Callable[..., Done]:
    """Calls `memgen` in a process of its own: the hub's library reads the environment when it is loaded."""

    def call(*arguments: str, token: str | None = TOKEN) -> Done:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # the hub's other way of storing large files, which the stand-in has not
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(tmp_path / "hf"),
        }
        environment.pop("HF_TOKEN", None)
        if token is not None:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-c", "from api.cli.main import run; run()", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return call


def _push(at_hub: Callable[..., Done], version: str = "bot@2", *more: str, token: str | None = TOKEN) -> Done:
    return at_hub("push", version, REPOSITORY, "--base-model", "acme/tiny", *more, token=token)


def test_a_version_goes_to_the_hub_and_comes_back(
    bot: Rows, hub: HubServer, at_hub: Callable[..., Done], tmp_path: Path
) -> None:
    pushed = _push(at_hub, "bot@2", "--license", "mit")
    assert pushed.code == 0, pushed.err
    repository = hub.repositories[REPOSITORY]
    assert f"{hub.url}/{REPOSITORY}/commit/{repository.head}" in pushed.out
    assert repository.private
    assert len(repository.commits) == 2, "the first is the hub's own: nobody fetches half a version"
    files = repository.commits[repository.head]
    assert {name for name in files if not name.startswith("artifact/")} == {
        ".gitattributes",
        "README.md",
        "version.json",
    }
    assert all(name.endswith((".safetensors", ".json")) for name in files if name.startswith("artifact/"))
    assert _metadata(files["README.md"].decode())["base_model"] == "acme/tiny"
    large = {name for name in files if name.endswith(".safetensors")}
    assert {files[name] for name in large} == set(hub.objects.values()), "weights go by LFS"

    pulled = at_hub("pull", REPOSITORY, "copy", "--json")
    assert pulled.code == 0, pulled.err
    assert (pulled.document["number"], pulled.document["revision"]) == (1, repository.head)

    assert {sent for _, path, sent in hub.seen if not path.startswith("/lfs/")} == {f"Bearer {TOKEN}"}
    assert {sent for _, path, sent in hub.seen if path.startswith("/lfs/")} == {None}, "another host"
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == [], "the token is the environment's, and stays there"
    assert TOKEN not in pushed.out + pushed.err + pulled.out + pulled.err


def test_a_push_replaces_the_version_and_an_older_commit_is_still_there(
    bot: Rows, hub: HubServer, at_hub: Callable[..., Done]
) -> None:
    assert _push(at_hub, "bot@1").code == 0
    repository = hub.repositories[REPOSITORY]
    first = repository.head
    repository.commit({**repository.commits[first], "artifact/stale.json": b"{}", "notes.md": b"mine"})
    assert _push(at_hub, "bot@2").code == 0
    files = repository.commits[repository.head]
    assert ("artifact/stale.json" in files, "notes.md" in files) == (False, True)
    assert json.loads(files["version.json"])["number"] == 2
    older = at_hub("pull", REPOSITORY, "copy", "--revision", first, "--json")
    assert older.document["origin"] == "bot@1"
    newest = at_hub("pull", REPOSITORY, "copy", "--json")
    assert newest.document["origin"] == "bot@2"
    missing = at_hub("pull", REPOSITORY, "copy", "--revision", "f" * 40)
    assert (missing.code, "it has no such revision" in missing.err) == (1, True), missing.err


def test_what_the_hub_refuses_is_one_clear_line(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    nobody = _push(at_hub, token=None)
    assert (nobody.code, hub.repositories) == (1, {})
    assert "HF_TOKEN" in nobody.err
    assert len(nobody.err.splitlines()) == 1
    missing = at_hub("pull", "acme/nothing", "copy")
    assert (missing.code, len(missing.err.splitlines())) == (1, 1)
    assert "it is not there, or not for this user" in missing.err
    assert _push(at_hub).code == 0
    stranger = at_hub("pull", REPOSITORY, "copy", token="hf_of-somebody-else")
    assert "it is not there, or not for this user" in stranger.err, "it is private"
    unnamed = at_hub("push", "bot@2", REPOSITORY)
    assert "--base-model" in unnamed.err, "the hub refuses a base that it does not know"


def test_nothing_becomes_public_by_oversight(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    assert _push(at_hub, "bot@1", "--public").code == 0
    repository = hub.repositories[REPOSITORY]
    assert not repository.private
    before = repository.head
    refused = _push(at_hub, "bot@2")
    assert (refused.code, repository.head) == (1, before)
    assert "is public on the hub; say --public" in refused.err


def test_trajectories_do_not_leave_by_oversight(
    bot: Rows, hub: HubServer, at_hub: Callable[..., Done], tmp_path: Path
) -> None:
    make_stored_version(bot, "b", more={"experience/entries.json": b'{"trajectories": ["Where is order 1?"]}'})
    refused = _push(at_hub, "bot@3")
    assert (refused.code, hub.repositories) == (1, {})
    assert "word for word" in refused.err
    assert _push(at_hub, "bot@3", "--with-experience").code == 0
    succeed("push", "bot@3", str(tmp_path / "here"))


def test_a_repository_that_was_tampered_with_is_refused(bot: Rows, hub: HubServer, at_hub: Callable[..., Done]) -> None:
    assert _push(at_hub).code == 0
    repository = hub.repositories[REPOSITORY]
    good = repository.commits[repository.head]
    for change, says in (
        ({"artifact/memory.safetensors": b"other"}, "artifact/memory.safetensors has sha256"),
        ({"artifact/weaver.bin": b"\x80\x04"}, "expected .safetensors and .json files alone"),
        ({"README.md": good["README.md"].replace(b"manifest_sha256: ", b"manifest_sha256: 0")}, "manifest_sha256"),
    ):
        repository.commit({**good, **change})
        refused = at_hub("pull", REPOSITORY, "copy")
        assert (refused.code, says in refused.err) == (1, True), refused.err
    assert succeed("versions", "list", "copy", "--json").document == {"data": []}


def test_a_pull_brings_back_what_retention_removed(bot: Rows, folder: Path) -> None:
    purge_versions(bot, 2)
    assert succeed("pull", str(folder), "bot").out == "bot@2 is bot@2 here, whose bytes are back.\n"
    shutil.rmtree(folder)
