"""`memgen push` and `pull` by a repository: a stand-in of the hub, and the hub's real library."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.cli.invoking import Done, succeed
from tests.api.cli.pushed import REPOSITORY, TOKEN, at_hub, bot, hub, metadata_of, push
from tests.hub_server import HubServer
from tests.registry.conftest import Rows
from tests.registry.stored_versions import make_stored_version

__all__ = ["at_hub", "bot", "hub"]


def test_a_version_goes_to_the_hub_and_comes_back(
    bot: Rows, hub: HubServer, at_hub: Callable[..., Done], tmp_path: Path
) -> None:
    pushed = push(at_hub, "bot@2", "--license", "mit")
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
    assert metadata_of(files["README.md"].decode())["base_model"] == "acme/tiny"
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
    assert [path for _, path, _ in hub.seen if "xet" in path] == [], "it was offered, and hf_xet is installed"

    commits = list(repository.commits)
    again = push(at_hub, "bot@2", "--license", "mit", "--json")
    assert (again.document["sent"], list(repository.commits)) == (False, commits), again.err
    assert again.document["address"] == f"{hub.url}/{REPOSITORY}/commit/{repository.head}"
    assert again.err == ""


def test_a_push_replaces_the_version_and_an_older_commit_is_still_there(
    bot: Rows, hub: HubServer, at_hub: Callable[..., Done]
) -> None:
    assert push(at_hub, "bot@1").code == 0
    repository = hub.repositories[REPOSITORY]
    first = repository.head
    repository.commit({**repository.commits[first], "artifact/stale.json": b"{}", "notes.md": b"mine"})
    assert push(at_hub, "bot@2").code == 0
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
    nobody = push(at_hub, token=None)
    assert (nobody.code, hub.repositories) == (1, {})
    assert "HF_TOKEN" in nobody.err
    assert len(nobody.err.splitlines()) == 1
    missing = at_hub("pull", "acme/nothing", "copy")
    assert (missing.code, len(missing.err.splitlines())) == (1, 1)
    assert "it is not there, or not for this user" in missing.err
    assert push(at_hub).code == 0
    stranger = at_hub("pull", REPOSITORY, "copy", token="hf_of-somebody-else")
    assert "it is not there, or not for this user" in stranger.err, "it is private"
    unnamed = at_hub("push", "bot@2", REPOSITORY)
    assert "--base-model" in unnamed.err, "the hub refuses a base that it does not know"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "has the token of HF_TOKEN"),
        (403, "has the token of HF_TOKEN"),
        (429, "it was asked too often (429). Wait some minutes"),
        (503, "it failed (503). Do it again later"),
    ],
)
def test_a_status_of_the_hub_is_told_in_words(
    hub: HubServer, at_hub: Callable[..., Done], status: int, says: str
) -> None:
    hub.failing["/api/"] = status
    for done in (push(at_hub), at_hub("pull", REPOSITORY, "copy")):
        assert (done.code, len(done.err.splitlines())) == (1, 1), done.err
        assert says in done.err
        assert TOKEN not in done.err


def test_a_hub_that_is_away_is_told(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    hub.url = "http://127.0.0.1:9"
    done = at_hub("pull", REPOSITORY, "copy")
    assert (done.code, len(done.err.splitlines())) == (1, 1), done.err
    assert "no answer from http://127.0.0.1:9" in done.err


def test_a_base_that_the_hub_has_not_is_one_clear_line(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    done = at_hub("base", "check", "acme/nothing")
    assert (done.code, len(done.err.splitlines())) == (1, 1), done.err
    assert "the hub has no such model, or HF_TOKEN has no access to it" in done.err
    assert not any("tokenizer" in path for _, path, _ in hub.seen), "one file was asked for"


def test_an_upload_that_broke_off_leaves_the_repository_as_it_was(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    assert push(at_hub, "bot@1").code == 0
    repository = hub.repositories[REPOSITORY]
    before, sent = repository.head, dict(hub.objects)
    hub.failing["/lfs/"] = 403
    broken = push(at_hub, "bot@2")
    assert (broken.code, repository.head, hub.objects) == (1, before, sent), broken.err
    assert "signature" not in broken.err, "addresses of stored files let whoever has them read and write"
    hub.failing.clear()
    assert push(at_hub, "bot@2").code == 0
    assert json.loads(repository.commits[repository.head]["version.json"])["number"] == 2


def test_a_download_that_breaks_off_goes_on(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    assert push(at_hub).code == 0
    hub.cut_at = 3
    pulled = at_hub("pull", REPOSITORY, "copy", "--json")
    assert pulled.code == 0, pulled.err
    assert len(hub.cut) == 2, "each of the files with weights was cut"


def test_a_branch_and_a_pull_request_leave_main_as_it_is(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    assert push(at_hub, "bot@1").code == 0
    repository = hub.repositories[REPOSITORY]
    main = repository.head
    assert push(at_hub, "bot@2", "--branch", "next").code == 0
    proposed = push(at_hub, "bot@2", "--pull-request", "--json")
    assert proposed.document["address"] == f"{hub.url}/{REPOSITORY}/discussions/1"
    assert repository.head == main
    for revision in ("next", "refs/pr/1"):
        files = repository.commits[repository.branches[revision]]
        assert json.loads(files["version.json"])["number"] == 2
    pulled = at_hub("pull", REPOSITORY, "copy", "--revision", "next", "--json")
    assert (pulled.document["origin"], pulled.document["revision"]) == ("bot@2", repository.branches["next"])
    nowhere = at_hub("push", "bot@2", "acme/other", "--base-model", "acme/tiny", "--pull-request")
    assert (nowhere.code, "acme/other" in hub.repositories) == (1, False)
    assert "it is not there, or not for this user" in nowhere.err


@pytest.mark.parametrize(
    "name", ["artifact/../../outside.json", "artifact/a\\b.json", "artifact/\x1b[2J.json", f"artifact/{'d/' * 9}x.json"]
)
def test_a_name_that_would_lie_elsewhere_is_refused_before_it_is_fetched(
    hub: HubServer, at_hub: Callable[..., Done], tmp_path: Path, name: str
) -> None:
    assert push(at_hub).code == 0
    repository = hub.repositories[REPOSITORY]
    repository.commit({**repository.commits[repository.head], name: b"{}"})
    seen = len(hub.seen)
    refused = at_hub("pull", REPOSITORY, "copy")
    assert (refused.code, len(refused.err.splitlines())) == (1, 1), refused.err
    assert "expected" in refused.err
    assert [path for _, path, _ in hub.seen[seen:] if "/resolve/" in path] == []
    assert [*tmp_path.rglob("outside.json")] == []


def test_nothing_becomes_public_by_oversight(hub: HubServer, at_hub: Callable[..., Done]) -> None:
    assert push(at_hub, "bot@1", "--public").code == 0
    repository = hub.repositories[REPOSITORY]
    assert not repository.private
    before = repository.head
    refused = push(at_hub, "bot@2")
    assert (refused.code, repository.head) == (1, before)
    assert "is public on the hub; say --public" in refused.err


def test_trajectories_do_not_leave_by_oversight(
    bot: Rows, hub: HubServer, at_hub: Callable[..., Done], tmp_path: Path
) -> None:
    make_stored_version(bot, "b", more={"experience/entries.json": b'{"trajectories": ["Where is order 1?"]}'})
    refused = push(at_hub, "bot@3")
    assert (refused.code, hub.repositories) == (1, {})
    assert "word for word" in refused.err
    pushed = push(at_hub, "bot@3", "--with-experience")
    assert (pushed.code, "bot@3 holds 1 trajectory word for word" in pushed.err) == (0, True), pushed.err
    succeed("push", "bot@3", str(tmp_path / "here"))


def test_a_repository_that_was_tampered_with_is_refused(bot: Rows, hub: HubServer, at_hub: Callable[..., Done]) -> None:
    assert push(at_hub).code == 0
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
