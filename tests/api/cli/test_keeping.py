"""Schedules, versions kept and data deleted on the command line, and the recipes of the documentation."""

import re
import shlex
import uuid
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.adapters import create_adapter, get_adapter
from registry.database import transaction
from registry.models import DatasetItem, IdempotentReply, Job, Trajectory, Version
from registry.serving.aliases import promote
from registry.versions.records import get_version
from registry.wiring import Services
from tests.api.cli.invoking import fail, memgen, succeed
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import beside, make_stored_version, retar, stored_keys

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
SECTIONS = (
    "Schedules",
    "Searching trajectories",
    "Deleting data",
    "Versions: compare, tag, archive, export, retention, garbage",
)
NAME, DESK = "support-bot", "desk-bot"


@pytest.fixture
def bot(api_url: str, services: Services, project_id: uuid.UUID) -> Rows:
    """`support-bot` with versions 1 (champion), 2 and 3 on `support`, of which anna and session s-17 sent some; and
    `desk-bot`, whose version 2 answers with the memory of 1 too."""
    rows = Rows(services, project_id, NAME)
    with transaction(services.sessions) as session:
        rows.make_adapter(session)
    rows.task("support", chats(30))
    versions = [make_stored_version(rows, "support") for _ in range(3)]
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, NAME, lock=True)
        promote(session, adapter, "champion", session.get_one(Version, versions[0].id), actor="test", reason="")
    desk = Rows(services, project_id, DESK)
    with transaction(services.sessions) as session:
        desk.make_adapter(session, strategy="isolated")
    first = make_stored_version(desk, "support", others={})
    make_stored_version(desk, "support", parent=first, others={"returns": first.artifact_hash})
    rows.task("more", [*chats(4, word="a", metadata={"user": "anna"}), *chats(3, word="s", session_id="s-17")])
    return rows


def _recipes(section: str) -> list[list[str]]:
    text = OPERATIONS.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_recipes_run(section: str, bot: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipes = _recipes(section)
    assert recipes, "the documentation lost its recipes"
    for program, *arguments in recipes:
        assert program == "memgen"
        succeed(*arguments)


def test_a_schedule_on_the_command_line(bot: Rows) -> None:
    made = succeed(
        *("schedule", "create", "nightly", "--adapter", NAME, "--task", "support"),
        *("--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--set", "steps=7", "--json"),
    ).document
    assert (made["training"]["steps"], made["training"]["batch_size"], made["promote"]) == (7, 8, True)
    assert (len(made["next_runs"]), made["waiting"], made["last_job"]) == (5, 0, None)
    assert "support-bot learns support at 30 2 * * * (Europe/Berlin)" in succeed("schedule", "show", "nightly").out
    assert succeed("schedule", "pause", "nightly", "--json").document["next_runs"] == []
    assert "paused" in succeed("schedule", "list").out
    changed = succeed("schedule", "change", "nightly", "--after", "5", "--min-reward", "0.9", "--json").document
    assert (changed["kind"], changed["cron"], changed["min_reward"]) == ("new_trajectories", None, 0.9)
    assert changed["training"]["steps"] == 7
    assert succeed("schedule", "runs", "nightly", "--json").document == {"data": [], "next_cursor": None}
    assert "(409 name_taken)" in fail(
        "schedule", "create", "nightly", "--adapter", NAME, "--task", "support", "--after", "5"
    )
    for wrong in (
        ("--cron", "x"),
        ("--cron", "0 3 * * *", "--zone", "Mars"),
        ("--cron", "0 3 * * *", "--idle-hours", "1"),
        (),
    ):
        message = fail("schedule", "create", "other", "--adapter", NAME, "--task", "support", *wrong)
        assert "(422 invalid_schedule)" in message
    assert "Nothing to change" in fail("schedule", "change", "nightly")
    assert "is deleted" in succeed("schedule", "delete", "nightly").out
    assert "memgen schedule list" in fail("schedule", "show", "nightly")


def test_versions_list_without_a_subcommand(bot: Rows) -> None:
    listed = succeed("versions", NAME, "--json").document
    assert [version["number"] for version in listed["data"]] == [1, 2, 3]
    assert listed == succeed("versions", "list", NAME, "--json").document
    assert "compare" in succeed("versions", "--help").out
    assert memgen("versions").code == 2


def test_compare_tag_archive_and_lineage(bot: Rows) -> None:
    found = succeed("versions", "compare", NAME, "1", "2", "--json").document
    assert (found["changes"], found["left"]["losses"]) == ({"support": 0.0}, [2.0, 1.0, 0.5])
    assert "2 > 1 > 0.5 (3 steps)" in succeed("versions", "compare", NAME, "1", "2").out
    assert "tagged good" in succeed("versions", "tag", NAME, "1", "good").out
    assert "(409 version_needed)" in fail("versions", "archive", NAME, "1")
    assert "archived" in succeed("versions", "archive", NAME, "2", "--reason", "old").out
    assert "(403 version_not_servable)" in fail("promote", NAME, "2")
    states = succeed("versions", "states", NAME, "--json").document["data"]
    assert [(s["tags"], s["archived_at"] is not None) for s in states] == [(["good"], False), ([], True), ([], False)]
    former = memgen("versions", "standings", NAME, "--json")
    assert (former.code, former.document["data"]) == (0, states)
    assert "deprecated" in former.err
    assert "standings" not in succeed("versions", "--help").out
    shown = succeed("versions", "lineage", NAME, "2").out
    assert "archived by key bootstrap old" in shown
    assert "22 trajectories" in shown or "trajectories, 0 replayed" in shown


def test_pruning_and_garbage_are_dry_runs_by_default(bot: Rows) -> None:
    assert succeed("versions", "prune", NAME, "--keep-last", "1", "--json").document["purged"] == [2]
    succeed("versions", "compare", NAME, "1", "2")
    assert "are gone" in succeed("versions", "prune", NAME, "--keep-last", "1", "--apply").out
    assert "(403 version_not_servable)" in fail("versions", "export", NAME, "2", "gone.tar")
    assert succeed("versions", "prune", NAME, "--keep-last", "1", "--json").document["purged"] == []
    document = succeed("gc", "--json").document
    assert (document["dry_run"], document["objects"]) == (True, []), "all is younger than the grace period"


def test_an_export_comes_in_once_and_waits_for_its_check(bot: Rows, tmp_path: Path) -> None:
    file = tmp_path / "one.tar"
    assert str(file) in succeed("versions", "export", NAME, "3", str(file)).out
    own = succeed("versions", "import", NAME, str(file), "--json").document
    assert (own["number"], own["created"], own["restored"], own["check_job"]) == (3, False, False, None)
    beside(bot, "copy")
    first = succeed("versions", "import", "copy", str(file), "--json").document
    assert (first["number"], first["created"], first["origin"]) == (1, True, "support-bot@3")
    again = succeed("versions", "import", "copy", str(file), "--json").document
    assert (again["number"], again["created"], again["check_job"]) == (1, False, None)
    assert "is unchecked" in fail("promote", "copy", "1")
    assert succeed("jobs", "show", first["check_job"], "--json").document["kind"] == "check_import"
    with transaction(bot.services.sessions) as session:
        assert session.get_one(Job, uuid.UUID(first["check_job"])).enqueued_at is not None
    file.write_bytes(file.read_bytes().replace(b"weights", b"WEIGHTS"))
    assert "(422 invalid_archive)" in fail("versions", "import", NAME, str(file))
    assert not list(tmp_path.glob("*.part"))


def test_an_isolated_version_comes_in_with_its_parts(bot: Rows, tmp_path: Path) -> None:
    file = tmp_path / "desk.tar"
    succeed("versions", "export", DESK, "2", str(file))
    with transaction(bot.services.sessions) as session:
        mine = get_adapter(session, bot.project_id, DESK)
        part, artifact = (get_version(session, mine, number).artifact_key for number in (1, 2))
        create_adapter(session, bot.project_id, name="copy", base_model="tiny", base_revision="r1", strategy="isolated")
    before = {key: bot.services.store.get(key) for key in stored_keys(bot, part)}
    for folder in (part, artifact):
        bot.services.store.delete_folder(folder)
    broken = tmp_path / "broken.tar"
    hashed = part.rpartition("/")[2]
    retar(file, broken, lambda files: files.update({f"parts/{hashed}/memory.safetensors": b"forged"}))
    message = fail("versions", "import", "copy", str(broken))
    assert f"parts/{hashed}/memory.safetensors has sha256" in message
    assert "(422 invalid_archive)" in message
    assert not stored_keys(bot, part)
    assert "strategy 'replay'" in fail("versions", "import", NAME, str(file))
    found = succeed("versions", "import", "copy", str(file), "--json").document
    assert (found["number"], found["created"], found["origin"]) == (1, True, "desk-bot@2")
    assert {key: bot.services.store.get(key) for key in stored_keys(bot, part)} == before
    assert stored_keys(bot, artifact)


def test_a_rollback_says_what_it_passes_over(bot: Rows) -> None:
    for number in ("2", "3"):
        succeed("promote", NAME, number)
    succeed("versions", "archive", NAME, "2")
    assert "(409 stale_alias)" in fail("rollback", NAME, "--expected", "2")
    done = succeed("rollback", NAME, "--expected", "3").out
    assert "version 3 to 1 (rollback)." in done
    assert "Passed over version 2: support-bot@2 is archived; take it out of the archive first." in done
    newest = succeed("history", NAME, "--json").document["data"][-1]
    assert [skipped["version"] for skipped in newest["evidence"]["skipped"]] == [2]
    succeed("promote", NAME, "3")
    succeed("versions", "archive", NAME, "1")
    message = fail("rollback", NAME)
    assert "nothing that served before it may serve now: support-bot@1 is archived" in message
    assert "(409 nothing_to_roll_back_to)" in message


def test_deleting_is_a_dry_run_by_default_and_leaves_a_record(bot: Rows, api_url: str, api_key: str) -> None:
    assert "Nothing was deleted" in succeed("delete-data", "user", "anna").err
    with transaction(bot.services.sessions) as session:
        known = session.scalars(sa.select(Trajectory).where(Trajectory.details["user"].astext == "anna")).first()
        assert known is not None
    assert str(known.id) in succeed("trace", str(known.id)).out
    assert "(409 deletion_changed)" in fail("delete-data", "user", "anna", "--expected", "9", "--apply")
    done = succeed("delete-data", "user", "anna", "--reason", "law", "--expected", "4", "--apply", "--json").document
    assert (done["bytes_gone"], done["affected"]["trajectories"], done["actor"]) == (True, 4, "key bootstrap")
    assert "(404 trajectory_not_found)" in fail("trace", str(known.id))
    assert "(404 trajectory_not_found)" in fail("delete-data", "user", "anna")
    with httpx.Client(base_url=api_url, headers={"Authorization": f"Bearer {api_key}"}) as client:
        [record] = client.get("/v1/deletions").json()["data"]
    assert (record["id"], record["reason"], record["bytes_gone"]) == (done["id"], "law", True)
    assert succeed("deletions", "--json").document["data"] == [record]
    assert done["id"] in succeed("deletions").out
    assert "(404 deletion_not_found)" in fail("deletions", str(known.id))


def test_the_command_line_shows_how_retraining_goes(bot: Rows) -> None:
    with transaction(bot.services.sessions) as session:
        learned = session.scalars(sa.select(DatasetItem.trajectory_id).limit(1)).one()
    done = succeed("delete-data", "trajectory", str(learned), "--policy", "retrain", "--apply", "--json").document
    steps = done["retrainings"]
    assert {(step["adapter"], step["state"]) for step in steps} == {
        (NAME, "queued"),
        (DESK, "queued"),
        (DESK, "waiting"),
    }
    shown = succeed("deletions", done["id"]).out
    assert f"{NAME}@1" in shown
    assert "1 item of support" in shown
    assert "waiting" in shown
    assert all(step["job"] in shown for step in steps if step["job"])
    assert "2 queued, 1 waiting" in succeed("deletions").out


def test_scopes_and_idempotency(bot: Rows, api_url: str, api_key: str) -> None:
    key = succeed("keys", "create", "agent", "--scope", "read", "--scope", "write", "--json").document["key"]
    schedule = {"name": "n", "adapter": NAME, "task": "support", "new_trajectories": 5}
    forbidden = [
        ("POST", "/v1/schedules", schedule),
        ("POST", "/v1/deletions", {"scope": "user", "id": "anna"}),
        ("POST", "/v1/garbage", {}),
        ("PUT", f"/v1/adapters/{NAME}/versions/1/tags/x", None),
        ("POST", f"/v1/adapters/{NAME}/versions/2/archive", {}),
        ("POST", f"/v1/adapters/{NAME}/retention/runs", {}),
        ("POST", f"/v1/adapters/{NAME}/versions/import", None),
        ("GET", f"/v1/adapters/{NAME}/versions/1/export", None),
    ]
    with httpx.Client(base_url=api_url, headers={"Authorization": f"Bearer {key}"}) as client:
        for method, path, body in forbidden:
            assert client.request(method, path, json=body).status_code == 403, path
    with httpx.Client(base_url=api_url, headers={"Authorization": f"Bearer {api_key}"}) as client:
        replies = [client.post("/v1/schedules", json=schedule, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [201, 201]
        assert replies[0].json() == replies[1].json()
        assert client.get("/v1/schedules/n/history").json()["data"][0]["actor"] == "key bootstrap"
    with transaction(bot.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(IdempotentReply)) == 1
        assert get_version(session, get_adapter(session, bot.project_id, NAME), 1).number == 1
