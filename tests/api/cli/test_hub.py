"""`memgen push` and `pull` by a folder, in this process."""

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.models import Job, Version
from tests.api.cli.invoking import fail, memgen, succeed
from tests.api.cli.pushed import bot, folder, metadata_of
from tests.registry.conftest import Rows
from tests.registry.stored_versions import make_stored_version, purge_versions

__all__ = ["bot", "folder"]

EXPERIENCE = b'{"format": 1, "trajectories": [{"prompt": "Where is order 1?"}], "insights": [], "states": null}'


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
    found = metadata_of(card)
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
    assert "`apache-2.0`, for this version" in card
    succeed("push", "bot@1", str(folder), "--base-model", "acme/tiny")
    card = (folder / "README.md").read_text()
    assert "license" not in metadata_of(card)
    assert "named none" in card
    assert "| 2 | b |" not in card, "what came after it is not its own"


def _drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def _swap(old: str, new: str, name: str = "README.md") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


def _bomb(folder: Path) -> None:
    """A card that is a kilobyte, and 10 to the power of 30 when it is printed."""
    lists = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 31)]
    text = "\n".join(["---", "a0: &a0 [x]", *lists, "memgen: {manifest_sha256: *a30}", "---"])
    (folder / "README.md").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop("version.json"), "there is no version.json"),
        (_drop("README.md"), "README.md can't be read"),
        (_write("README.md", b"# bot"), "README.md has no metadata `memgen`"),
        (_write("README.md", b"---\nmemgen: [\n---\n"), "README.md can't be read"),
        (_swap("manifest_sha256: ", "manifest_sha256: 0"), "README.md says memgen.manifest_sha256 "),
        (
            _write("README.md", b"---\nmemgen: [\n---\n" + b"x" * 1_000_001),
            "bytes; expected at most 1000000",
        ),
        (_bomb, "README.md says memgen.manifest_sha256 [["),
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
    inside = tmp_path / "mine" / "thesis.tex" / "pushed"
    assert ": Not a directory." in fail("push", "bot@2", str(inside), "--license", "mit")
    missing = tmp_path / "nowhere" / "bot.tar"
    assert ": No such file or directory." in fail("versions", "export", "bot", "2", str(missing))


def test_a_push_does_not_write_through_links(bot: Rows, folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.json").write_text("years of work")
    shutil.rmtree(folder / "artifact")
    (folder / "artifact").symlink_to(mine)
    assert "artifact is a link" in fail("push", "bot@1", str(folder), "--base-model", "acme/tiny")
    assert (mine / "thesis.json").read_text() == "years of work"


def test_a_copy_that_broke_off_is_no_version_and_can_be_made_again(bot: Rows, folder: Path) -> None:
    for path in (folder / "artifact", folder / "README.md"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "artifact has no manifest.json" in fail("pull", str(folder), "copy")
    succeed("push", "bot@2", str(folder), "--base-model", "acme/tiny")
    assert succeed("pull", str(folder), "copy", "--json").document["origin"] == "bot@2"


def test_what_can_not_be_meant_is_misuse(bot: Rows, tmp_path: Path) -> None:
    target = str(tmp_path / "pushed")
    for options in (
        ("--license", "MIT licence\nevil: true"),
        ("--public",),
        ("--pull-request",),
        ("--branch", "next"),
    ):
        done = memgen("push", "bot@2", target, *options)
        assert (done.code, options[0] in done.err) == (2, True), done.err
    both = memgen("push", "bot@2", "acme/bot", "--branch", "next", "--pull-request")
    assert (both.code, "--branch" in both.err) == (2, True)


def test_a_dry_run_says_what_would_leave_and_writes_nothing(bot: Rows, tmp_path: Path) -> None:
    make_stored_version(bot, "b", more={"experience/entries.json": EXPERIENCE})
    target = tmp_path / "pushed"
    done = succeed("push", "bot@3", str(target), "--license", "mit", "--dry-run")
    assert not target.exists()
    assert "artifact/experience/entries.json" in done.out
    assert "license: mit" in done.out
    assert "bot@3 holds 1 trajectory word for word and 0 insights" in done.err
    listed = succeed("push", "bot@3", "acme/bot", "--base-model", "acme/tiny", "--dry-run", "--json").document
    assert sorted(listed) == ["card", "files", "sent", "target", "version"]
    assert (listed["version"], listed["target"], listed["sent"]) == ("bot@3", "acme/bot", False)
    assert "memory.safetensors" in "".join(each["name"] for each in listed["files"])


def test_text_of_trajectories_is_told_where_it_goes_to_a_folder_too(bot: Rows, tmp_path: Path) -> None:
    make_stored_version(bot, "b", more={"experience/entries.json": EXPERIENCE})
    done = succeed("push", "bot@3", str(tmp_path / "pushed"), "--license", "mit")
    assert done.err == "bot@3 holds 1 trajectory word for word and 0 insights, for its weaver's cues.\n"
    assert (
        "It comes with text that it learned from:** 1 trajectory word for word"
        in (tmp_path / "pushed" / "README.md").read_text()
    )


def test_a_version_is_named_by_its_number_or_an_alias(bot: Rows, tmp_path: Path) -> None:
    target = str(tmp_path / "pushed")
    succeed("promote", "bot", "2")
    assert succeed("push", "bot@champion", target, "--json").document["version"] == 2
    assert "no alias 'nobody'; there are: champion" in fail("push", "bot@nobody", target)
    assert "(404 version_not_found)" in fail("push", "bot@9", target)
    assert memgen("push", "bot", target).code == 2


def test_no_adapter_is_made_for_a_version_that_it_could_not_take(bot: Rows, folder: Path) -> None:
    assert "(404 adapter_not_found)" in fail("pull", str(folder), "new")
    refused = fail("pull", str(folder), "new", "--create")
    assert "bot@2 was made for the base tiny at revision r1; this service has" in refused
    assert refused.endswith("Nothing was created.\n")
    assert "new" not in {each["name"] for each in succeed("adapter", "list", "--json").document["data"]}


def test_the_adapter_is_made_as_the_version_needs_it(bot: Rows, tmp_path: Path) -> None:
    succeed("adapter", "create", "served", "--strategy", "sequential")
    served = Rows(bot.services, bot.project_id, "served")
    with transaction(bot.services.sessions) as session:
        adapter = get_adapter(session, bot.project_id, "served")
        made_for = {"base_revision": adapter.base_revision, "base_identity": adapter.base_identity}
    make_stored_version(served, "b", more={"memory.json": json.dumps(made_for).encode()})
    succeed("push", "served@1", str(tmp_path / "pushed"))
    pulled = succeed("pull", str(tmp_path / "pushed"), "new", "--create", "--json").document
    assert (pulled["adapter"], pulled["origin"], pulled["license"]) == ("new", "served@1", None)
    [made] = [each for each in succeed("adapter", "list", "--json").document["data"] if each["name"] == "new"]
    assert (made["strategy"], made["description"]) == ("sequential", "From served@1.")


def test_nothing_of_it_stays_in_the_scratch_folder(bot: Rows, folder: Path, no_service: Path) -> None:
    succeed("pull", str(folder), "copy")
    assert [path for path in (no_service / "tmp").rglob("*") if path.is_file()] == []


def test_a_pull_brings_back_what_retention_removed(bot: Rows, folder: Path) -> None:
    purge_versions(bot, 2)
    assert succeed("pull", str(folder), "bot").out == "bot@2 is bot@2 here, whose bytes are back.\n"
    shutil.rmtree(folder)
