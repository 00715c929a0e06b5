"""Judges over HTTP, by the client and by the command line."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from memgen_client import JsonClient
from registry.database import transaction
from registry.judging.judgements import CaseFinding, record_finding
from registry.judging.judges import get_judge
from registry.keys import create_key
from registry.models import Project, Trajectory
from registry.settings import Settings
from registry.wiring import Services
from tests.api.cli.invoking import fail, succeed
from tests.api.live_api import serve
from tests.trajectory_samples import chat

BODY = {"name": "strict", "model": "base", "rubric": "Is it right?"}


@pytest.fixture
def base_url(settings: Settings, tiny_base: Path, tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "upstreams.toml"
    file.write_text(
        '[strong]\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["grader"]\nprivate = true\n'
        '[others]\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["*"]\nprivate = true\nprojects = ["elsewhere"]\n'
    )
    changed = {"base_model": str(tiny_base), "upstreams": file}
    with serve(settings.model_copy(update=changed)) as url:
        yield url


@pytest.fixture
def api(base_url: str, api_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {api_key}"}) as client:
        client.post("/v1/tasks", json={"name": "t", "grader": {"kind": "exact"}})
        yield client


def judged(services: Services, project_id: uuid.UUID, job_id: str) -> None:
    """What the worker would record: scores that follow the rewards."""
    with transaction(services.sessions) as session:
        judge = get_judge(session, project_id, "strict")
        for row in session.query(Trajectory).where(Trajectory.held_out.is_(False)).order_by(Trajectory.seq):
            finding = CaseFinding(
                (row.id,), "scored", f"said of {row.seq}", "base", ("h",), (row.reward or 0.0,), ({},)
            )
            record_finding(session, judge, uuid.UUID(job_id), finding)


def test_a_judge_is_made_shown_and_run(
    api: httpx.Client, services: Services, project_id: uuid.UUID, base_url: str, api_key: str
) -> None:
    made = api.post("/v1/judges", json={**BODY, "scale": 5})
    assert made.status_code == 201
    assert made.json()["settings"] == {
        "scale": 5,
        "group_size": 4,
        "temperature": None,
        "max_answer_tokens": 600,
        "max_characters": 60_000,
        "too_long": "truncate",
        "daily_calls": 1_000,
    }
    assert made.json()["reward_source"] == "judge:strict"
    assert api.post("/v1/judges", json={**BODY, "scale": 5}).status_code == 200
    differs = api.post("/v1/judges", json=BODY)
    assert (differs.status_code, differs.json()["title"]) == (409, "name taken")
    assert "scale" in differs.json()["detail"]
    with JsonClient(base_url, api_key) as client:
        client.trajectories.upload((chat(f"q{n}", reward=n % 2, reward_source="grader") for n in range(20)), task="t")
        job = client.judges.run("strict", "t", max_calls=7, max_tokens=9_000)
        assert job["params"]["max_calls"] == 7
        assert (job["kind"], job["adapter"]) == ("judge", None)
        judged(services, project_id, job["id"])
        shown = client.judges.get("strict")
        count = shown["judgements"]["scored"]
        assert shown["agreement"] == {
            "compared": count,
            "pairs": shown["agreement"]["pairs"],
            "concordance": 1.0,
        }
        page = client.judges.judgements(judge="strict", task="t", state="scored", limit=2)
        assert page["next_cursor"] is not None
        assert [each["state"] for each in page["data"]] == ["scored", "scored"]
        rest = client.judges.judgements(judge="strict", cursor=page["next_cursor"], limit=200)
        assert len(rest["data"]) == count - 2
        assert not {each["id"] for each in rest["data"]} & {each["id"] for each in page["data"]}
        assert {each["reward_source"] for each in rest["data"]} == {"grader"}, "a judge's never goes before others"
        one = page["data"][0]
        assert client.judges.judgements(trajectory=one["trajectory"])["data"] == [one]
    busy = api.post("/v1/jobs", json={"kind": "judge", "judge": "strict", "task": "t"})
    assert (busy.status_code, busy.json()["title"]) == (409, "judge busy")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "nobody"}, 404),
        ({"model": "nobody@champion"}, 404),
        ({"model": "none/gpt"}, 404),
        ({"model": "strong/other"}, 404),
        ({"model": "others/x"}, 404),
        ({"model": "strong/grader"}, 201),
        ({"model": "a\x00b"}, 422),
        ({"name": "UPPER"}, 422),
        ({"name": "a:b"}, 422),
        ({"kind": "absolute"}, 422),
        ({"rubric": "   "}, 422),
        ({"rubric": "a\x00b"}, 422),
        ({"rubric": "x" * 20_001}, 422),
        ({"scale": 1000}, 422),
        ({"scale": "10"}, 422),
        ({"group_size": 50}, 422),
        ({"daily_calls": 10**12}, 422),
        ({"temperature": 9}, 422),
        ({"colour": "red"}, 422),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_what_can_not_judge_is_refused_at_once(api: httpx.Client, change: dict[str, Any], status: int) -> None:
    assert api.post("/v1/judges", json={**BODY, **change}).status_code == status


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"judge": "strict"}, 422, "needs `judge` and `task`"),
        ({"task": "t"}, 422, "needs `judge` and `task`"),
        ({"judge": "strict", "task": "t", "adapter": "bot"}, 422, "takes no `adapter`"),
        ({"judge": "none", "task": "t"}, 404, "no judge named"),
        ({"judge": "strict", "task": "none"}, 404, "no task"),
        ({"judge": "strict", "task": "t", "max_calls": 0}, 422, "max_calls"),
        ({"judge": "strict", "task": "t", "max_tokens": 0}, 422, "max_tokens"),
    ],
)
def test_a_job_that_can_not_judge_is_refused_at_once(
    api: httpx.Client, body: dict[str, Any], status: int, words: str
) -> None:
    api.post("/v1/judges", json=BODY)
    refused = api.post("/v1/jobs", json={"kind": "judge", **body})
    assert refused.status_code == status
    assert words in refused.json()["detail"]
    other = api.post("/v1/jobs", json={"kind": "evaluate", "version": 1})
    assert (other.status_code, "needs `adapter`" in other.json()["detail"]) == (422, True)


def test_a_task_names_its_judge(api: httpx.Client) -> None:
    api.post("/v1/judges", json=BODY)
    assert api.get("/v1/tasks/t").json()["judge"] is None
    assert api.patch("/v1/tasks/t", json={"judge": "none"}).status_code == 404
    assert api.patch("/v1/tasks/t", json={"colour": "red"}).status_code == 422
    assert api.patch("/v1/tasks/t", json={"judge": "strict"}).json()["judge"] == "strict"
    assert api.patch("/v1/tasks/t", json={}).json()["judge"] == "strict"
    assert api.get("/v1/tasks").json()["data"][0]["judge"] == "strict"
    assert api.get("/v1/judges/strict").json()["tasks"] == ["t"]
    assert api.patch("/v1/judges/strict", json={"daily_calls": 3}).json()["settings"]["daily_calls"] == 3
    assert api.patch("/v1/judges/strict", json={"scale": 3}).status_code == 422
    assert api.get("/v1/tasks/t").json()["judge_rewards"] == "apart"
    assert api.patch("/v1/tasks/t", json={"judge_rewards": "fill"}).json()["judge_rewards"] == "fill"
    assert api.patch("/v1/tasks/t", json={"judge_rewards": "mix"}).status_code == 422
    changed = api.patch("/v1/tasks/t", json={"judge": None}).json()
    assert (changed["judge"], changed["judge_rewards"]) == (None, "fill")


def test_scopes_and_projects(api: httpx.Client, base_url: str, services: Services, project_id: uuid.UUID) -> None:
    api.post("/v1/judges", json=BODY)
    with transaction(services.sessions) as session:
        _, reader = create_key(session, project_id, "reader", ["read", "write"])
        other = Project(id=uuid.uuid4(), name="other")
        session.add(other)
        session.flush()
        _, stranger = create_key(session, other.id, "stranger", ["admin"])
    with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {reader}"}) as client:
        assert client.get("/v1/judges/strict").status_code == 200
        assert client.post("/v1/judges", json=BODY).status_code == 403
        assert client.patch("/v1/judges/strict", json={"daily_calls": 1}).status_code == 403
        assert client.patch("/v1/tasks/t", json={"judge": "strict"}).status_code == 403
        assert client.post("/v1/jobs", json={"kind": "judge", "judge": "strict", "task": "t"}).status_code == 403
    with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {stranger}"}) as client:
        assert client.get("/v1/judges").json()["data"] == []
        assert client.get("/v1/judges/strict").status_code == 404
        assert client.get("/v1/judgements?judge=strict").status_code == 404
        assert client.get("/v1/judgements").json()["data"] == []
        assert client.post("/v1/judges", json=BODY).status_code == 201, "names are a project's own"


def test_the_command_line(
    api: httpx.Client,
    base_url: str,
    api_key: str,
    services: Services,
    project_id: uuid.UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMGEN_API_URL", base_url)
    monkeypatch.setenv("MEMGEN_API_KEY", api_key)
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Is it right?\nIs it short?")
    made = succeed("judge", "create", "strict", "--model", "base", "--rubric", f"@{rubric}", "--set", "scale=5")
    assert "judge:strict" in made.out
    assert "can't be read" in fail("judge", "create", "x", "--model", "base", "--rubric", "@/nowhere")
    api.post(
        "/v1/trajectories",
        json=[chat(f"q{n}", reward=n % 2, reward_source="grader") for n in range(8)],
        params={"task": "t"},
    )
    job = succeed("judge", "run", "strict", "--task", "t", "--no-wait", "--json").document
    assert (job["state"], job["params"].get("held_out", False)) == ("queued", False)
    judged(services, project_id, job["id"])
    shown = succeed("judge", "show", "strict", "--limit", "3").out
    assert "100.0% of" in shown
    assert "said of" in shown
    document = succeed("judge", "show", "strict", "--json").document
    assert document["judge"]["rubric"] == "Is it right?\nIs it short?"
    assert document["judgements"][0]["score"] in (0.0, 1.0)
    assert "from now on" in succeed("judge", "attach", "strict", "--task", "t", "--daily-calls", "9").out
    assert "9" in succeed("judge", "list").out
    assert succeed("judge", "detach", "--task", "t", "--json").document["judge"] is None
    succeed("jobs", "cancel", job["id"])
    again = succeed("judge", "run", "strict", "--task", "t", "--held-out", "--no-wait", "--json").document
    assert again["params"]["held_out"] is True
    assert "memgen judge list" in fail("judge", "show", "none")


def test_openapi_lists_it(api: httpx.Client) -> None:
    paths = api.get("/openapi.json", timeout=60).json()["paths"]
    assert {"/v1/judges", "/v1/judges/{name}", "/v1/judgements"} <= set(paths)
    body = paths["/v1/judges"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/JudgeIn"}
