"""Analyses over HTTP, by the client and by the command line: what is refused at once, and how findings are shown."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.endpoints.job_bodies import JobIn
from memgen_client import Client
from registry.adapters import get_adapter
from registry.database import transaction
from registry.job_requests import JobKind
from registry.jobs import get_job
from registry.keys import create_key
from registry.models import Project
from registry.versions.analyses import folder_of_job
from registry.versions.records import get_version
from registry.versions.state import withdraw
from tests.api.cli.conftest import api_url, no_service
from tests.api.cli.invoking import fail, memgen, succeed
from tests.registry.analyzed import analyze
from tests.registry.conftest import Rows, rows

__all__ = ["api_url", "no_service", "rows"]

ANALYZE = {"kind": "analyze", "adapter": "bot", "version": 1}


@pytest.fixture
def versions(rows: Rows) -> Rows:
    """Two versions of `bot`, which have learned `a`; nobody grades `b`."""
    rows.task("a")
    for _ in range(2):
        rows.version("a")
    return rows


@pytest.fixture
def api(api_url: str, api_key: str, versions: Rows) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60) as client:
        client.post("/v1/tasks", json={"name": "b"})
        yield client


def test_everything_is_decided_when_the_job_is_made(api: httpx.Client) -> None:
    made = api.post("/v1/jobs", json=ANALYZE)
    assert made.status_code == 202, made.text
    assert made.json()["params"] == {
        **{"version": 1, "tasks": ["a"], "items": 200, "least_clusters": 2, "most_clusters": 8},
        **{"interventions": True, "ablations": True, "seed": 0},
    }
    api.post("/v1/judges", json={"name": "strict", "model": "bot@2", "rubric": "Is it right?"})
    terms = {"items": 7, "least_clusters": 3, "most_clusters": 3, "interventions": False, "against": 2, "seed": 5}
    made = api.post("/v1/jobs", json={**ANALYZE, "tasks": ["a", "a"], "analysis": terms, "judge": "strict"})
    assert made.json()["params"] == {
        **{"version": 1, "tasks": ["a"], "ablations": True, **terms},
        **{"judge": "strict", "judge_model": "bot@2", "max_calls": 1000},
    }


def test_a_body_without_one_has_the_hash_that_it_always_had() -> None:
    """Or a request that was sent to the release before, and is sent again, would be refused for its key."""
    body = JobIn.model_validate({"kind": JobKind.EVALUATE, "adapter": "bot", "version": 1})
    assert "analysis" not in json.loads(body.model_dump_json())


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"version": None}, 422, "needs `version`"),
        ({"version": 9}, 404, "has no version 9"),
        ({"adapter": None}, 422, "needs `adapter`"),
        ({"tasks": ["none"]}, 404, "no task"),
        ({"tasks": []}, 422, "no task of the analysis"),
        ({"tasks": ["b"]}, 422, "judges new answers"),
        ({"judge": "none"}, 404, "no judge"),
        ({"judge": "strict", "max_calls": 0}, 422, "max_calls is 0"),
        ({"analysis": {"against": 1}}, 422, "another version"),
        ({"analysis": {"against": 9}}, 404, "has no version 9"),
        ({"analysis": {"least_clusters": 5, "most_clusters": 4}}, 422, "no larger"),
        ({"analysis": {"least_clusters": 1}}, 422, "least_clusters"),
        ({"analysis": {"most_clusters": 10**6}}, 422, "most_clusters"),
        ({"analysis": {"items": 0}}, 422, "items"),
        ({"analysis": {"items": "all"}}, 422, "items"),
        ({"analysis": {"seed": -1}}, 422, "seed"),
        ({"analysis": {"seed": 2**31}}, 422, "seed"),
        ({"analysis": {"colour": "red"}}, 422, "colour"),
        ({"analysis": []}, 422, "analysis"),
        ({"kind": "evaluate", "analysis": {}}, 422, "takes no `analysis`"),
        ({"kind": "evaluate", "judge": "strict"}, 422, "takes no `judge`"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_what_can_not_be_analyzed_is_refused_at_once(
    api: httpx.Client, change: dict[str, Any], status: int, words: str
) -> None:
    api.post("/v1/judges", json={"name": "strict", "model": "base", "rubric": "Is it right?"})
    refused = api.post("/v1/jobs", json={**ANALYZE, **change})
    assert (refused.status_code, words in refused.json()["detail"]) == (status, True), refused.text
    assert api.get("/v1/jobs").json()["data"][0]["kind"] == "train_weaver"


def test_a_withdrawn_version_is_not_looked_into(api: httpx.Client, versions: Rows) -> None:
    with transaction(versions.services.sessions) as session:
        version = get_version(session, get_adapter(session, versions.project_id, "bot"), 1)
        withdraw(session, version, actor="test", reason="", evidence={})
    for body in (ANALYZE, {**ANALYZE, "version": 2, "analysis": {"against": 1}}):
        refused = api.post("/v1/jobs", json=body)
        assert (refused.status_code, refused.json()["title"]) == (403, "version not servable")


def test_what_was_found_is_read_by_its_job_and_by_its_version(
    api: httpx.Client, versions: Rows, api_url: str, api_key: str, tmp_path: Path
) -> None:
    missing = api.get("/v1/adapters/bot/versions/1/analysis")
    assert (missing.status_code, missing.json()["title"]) == (404, "analysis not found")
    job_id = str(analyze(versions.services, versions.project_id))
    found = api.get(f"/v1/jobs/{job_id}/analysis").json()
    assert (found["job_id"], found["clusters"]["verdict"], len(found["map"]["points"])) == (job_id, "clusters", 30)
    assert api.get("/v1/adapters/bot/versions/1/analysis").json() == found
    training = api.get("/v1/jobs").json()["data"][-1]["id"]
    assert api.get(f"/v1/jobs/{training}/analysis").status_code == 404
    with Client(api_url, api_key) as client:
        read = client.versions.analysis("bot", 1)
        assert read == client.jobs.analysis(job_id)
        assert read.interventions is not None
        assert [effect.role for effect in read.interventions.effects] == ["planning memory", *["no clear role"] * 2]
        size = client.jobs.analysis_files(job_id, tmp_path / "a.tar")
    assert size == (tmp_path / "a.tar").stat().st_size
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert "latents.safetensors" in tar.getnames()
    head = api.head(f"/v1/jobs/{job_id}/analysis/files")
    assert (head.status_code, head.headers["content-type"]) == (200, "application/x-tar")
    assert list(versions.services.scratch.folder.glob("analysis-*")) == []


def test_one_that_is_gone_says_so(api: httpx.Client, versions: Rows) -> None:
    job_id = analyze(versions.services, versions.project_id)
    with transaction(versions.services.sessions) as session:
        folder = folder_of_job(get_job(session, versions.project_id, job_id))
    versions.services.store.delete_folder(folder)
    for path in (f"jobs/{job_id}/analysis", f"jobs/{job_id}/analysis/files", "adapters/bot/versions/1/analysis"):
        gone = api.get(f"/v1/{path}")
        assert (gone.status_code, "was deleted" in gone.json()["detail"]) == (404, True)


def test_one_of_another_release_says_so(api: httpx.Client, versions: Rows) -> None:
    job_id = analyze(versions.services, versions.project_id, clusters=None)
    refused = api.get(f"/v1/jobs/{job_id}/analysis")
    assert (refused.status_code, "another release" in refused.json()["detail"]) == (500, True)


def test_projects_and_scopes(api: httpx.Client, versions: Rows) -> None:
    job_id = analyze(versions.services, versions.project_id)
    with transaction(versions.services.sessions) as session:
        other = Project(name="other")
        session.add(other)
        session.flush()
        _, theirs = create_key(session, other.id, "theirs", ["read", "train"])
        _, reads = create_key(session, versions.project_id, "reads", ["read"])
    for path in (f"jobs/{job_id}/analysis", f"jobs/{job_id}/analysis/files", "adapters/bot/versions/1/analysis"):
        assert api.get(f"/v1/{path}", headers={"Authorization": f"Bearer {theirs}"}).status_code == 404
        assert api.get(f"/v1/{path}", headers={"Authorization": f"Bearer {reads}"}).status_code == 200
    assert api.post("/v1/jobs", json=ANALYZE, headers={"Authorization": f"Bearer {reads}"}).status_code == 403


def test_the_command_shows_what_was_found(api: httpx.Client, versions: Rows) -> None:
    assert "(404 analysis_not_found)" in fail("versions", "analysis", "bot", "1")
    analyze(versions.services, versions.project_id)
    shown = succeed("versions", "analysis", "bot", "1").out
    for text in ("30 latents of 10 answers", "planning memory", "' <plan>'", "as trained", "They are much alike."):
        assert text in shown
    assert "10.0% to 40.0%" in shown
    assert "Left out, without cues: it reads none" in succeed("versions", "analysis", "bot", "1").err
    assert succeed("versions", "analysis", "bot", "1", "--json").document["latents"] == 30
    bare = analyze(
        versions.services,
        versions.project_id,
        clusters={"verdict": "no clusters", "reason": "too few", "choices": [], "clusters": [], "explained_by": {}},
        tokens={"directions": [], "chance_cosine": 0.3},
        drift=None,
        interventions=None,
        ablations=None,
    )
    assert succeed("versions", "analysis", "bot", "1", "--json").document["job_id"] == str(bare)
    shown = succeed("versions", "analysis", "bot", "1").out
    assert "No clusters. Too few." in shown
    assert "as trained" not in shown


def test_the_command_queues_what_it_is_told(api: httpx.Client) -> None:
    queued = succeed(
        *("analyze", "bot@1", "--task", "a", "--items", "9", "--clusters", "2-4", "--no-ablations", "--against", "2"),
        *("--seed", "3", "--no-wait", "--json"),
    ).document["job"]["params"]
    assert queued == {
        **{"version": 1, "tasks": ["a"], "items": 9, "least_clusters": 2, "most_clusters": 4, "interventions": True},
        **{"ablations": False, "seed": 3, "against": 2},
    }
    assert "memgen versions analysis bot 1" in succeed("analyze", "bot@1", "--clusters", "4", "--no-wait").out
    assert "no alias 'best'" in fail("analyze", "bot@best", "--no-wait")
    for wrong in (("bot",), ("bot@1", "--clusters", "many"), ("bot@1", "--no-wait", "--files", "a.tar")):
        assert memgen("analyze", *wrong).code == 2
