"""Jobs that look into the memory of a version, on the tiny base: what is kept, what goes on after a kill, what goes."""

import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.endpoints.analyses import StoredAnalysis
from memgen.errors import Cancelled
from registry.adapters import get_adapter
from registry.database import transaction
from registry.deletion.deletions import delete_data
from registry.deletion.erasure import finish_erasure
from registry.deletion.scope import DeletionSubject
from registry.errors import AnalysisNotFound
from registry.judging.judges import JudgeSettings, create_judge
from registry.models import Job, JudgeCall
from registry.settings import Settings
from registry.versions.analyses import analyses_prefix, folder_of_job, read_analysis
from registry.versions.records import get_version
from registry.versions.state import withdraw
from registry.wiring import open_services
from tests.workers.conftest import Workshop
from tests.workers.judged import JudgeServer, judge_server, says
from workers.jobs import analyze
from workers.runner import Running, run

QUICK: dict[str, Any] = {"tasks": ["yes"], "items": 12, "least_clusters": 2, "most_clusters": 3}
"""What costs little."""


def questions(count: int = 80) -> list[dict[str, Any]]:
    """A task whose words can be told from everything else."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"tulip-4711 number {n}?"},
                {"role": "assistant", "content": "yes" if n % 2 else "no, daffodil."},
            ]
        }
        for n in range(count)
    ]


@pytest.fixture
def tiny_base(tiny_base: Path, tmp_path: Path) -> Path:
    """With room for a judge's question, which is long in bytes."""
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4_500}))
    return base


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One version is kept loaded at most: a second one, or a judge, takes the first one's place if nothing holds it."""
    return settings.model_copy(update={"cached_versions": 1})


@pytest.fixture
def learned(workshop: Workshop) -> Workshop:
    """`bot@1`, which has learned `yes` for a moment."""
    workshop.add_task("yes", questions())
    job = workshop.work(workshop.queue("yes", training={"steps": 4}))
    assert job.state == "succeeded", job.error
    return workshop


def stored(workshop: Workshop) -> dict[str, bytes]:
    """Everything that there is of analyses, by its key behind the project's prefix."""
    prefix, store = analyses_prefix(workshop.project_id), workshop.services.store
    return {found.key.removeprefix(prefix): store.get(found.key) for found in store.list(prefix)}


def read(workshop: Workshop, job: Job) -> StoredAnalysis:
    return StoredAnalysis.model_validate_json(read_analysis(workshop.services.store, folder_of_job(job)))


def put_back(workshop: Workshop, job_id: uuid.UUID) -> None:
    """What the reaper does when the lease of a killed worker has run out."""
    with transaction(workshop.services.sessions) as session:
        session.get_one(Job, job_id).state = "queued"


class Killed(BaseException):
    pass


def dies(*_: Any, **__: Any) -> Any:
    raise Killed


def test_what_was_found_is_one_folder_without_a_word(learned: Workshop) -> None:
    second = learned.work(learned.queue("yes", parent=1, training={"steps": 4}))
    assert second.state == "succeeded", second.error
    job = learned.work(learned.queue_job("analyze", {**QUICK, "version": 2, "against": 1}))
    assert job.state == "succeeded", job.error
    assert job.result is not None
    found = read(learned, job)
    assert (found.version, found.items, [task.task for task in found.tasks]) == (2, 12, ["yes"])
    assert found.latents == job.result["latents"] == found.tasks[0].latents >= 12 * 8
    assert found.tasks[0].items == 12 == found.tasks[0].right + sum(found.tasks[0].failures.values())
    assert found.clusters.verdict == job.result["verdict"]
    assert len(found.clusters.clusters) == job.result["clusters"]
    assert len(found.map.points) == min(found.latents, 1500)
    assert found.drift is not None
    assert (found.drift.against, found.drift.items) == (1, 12)
    assert found.interventions is not None
    assert found.ablations is not None
    assert found.ablations.rows[0].name == "as trained"
    assert {str(effect.cluster): effect.role for effect in found.interventions.effects} == job.result["roles"]
    files = stored(learned)
    assert {key.partition("/")[0] for key in files} == {job.result["analysis"]}, "parts are gone"
    names = {key.partition("/")[2] for key in files}
    assert {"analysis.json", "items.jsonl", "latents.jsonl", "latents.safetensors", "manifest.json"} <= names
    assert {"nearest.safetensors", "nearest_tokens.json"} <= names
    words = ("tulip", "4711", "daffodil")
    assert [key for key, data in files.items() for word in words if word.encode() in data.lower()] == []
    assert list(learned.services.scratch.folder.glob(f"job-{job.id}*")) == []


def test_the_same_again_is_the_same(learned: Workshop) -> None:
    quick = {**QUICK, "version": 1, "interventions": False, "ablations": False}
    first, second = (learned.work(learned.queue_job("analyze", quick)) for _ in range(2))
    assert first.result == second.result
    assert first.result is not None
    other = learned.work(learned.queue_job("analyze", {**quick, "seed": 1}))
    assert other.result is not None
    assert other.result["analysis"] != first.result["analysis"]
    assert read(learned, first).interventions is None


def test_a_killed_job_goes_on_behind_what_was_whole(learned: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = learned.queue_job("analyze", {**QUICK, "version": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyze, "ablate", dies)
        with pytest.raises(Killed):
            run(learned.services, learned.handlers, job_id, "first")
    before = {key: data for key, data in stored(learned).items() if key.endswith("items.jsonl")}
    assert {key.partition("/")[2] for key in before} == {"items/items.jsonl", "latents/items.jsonl"}
    monkeypatch.setattr(analyze, "collect_latents", dies)
    monkeypatch.setattr(analyze, "intervene", dies)
    put_back(learned, job_id)
    job = learned.work(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2), job.error
    assert read(learned, job).interventions is not None
    assert [key for key in stored(learned) if key.startswith(str(job_id))] == []
    assert "latents: found by an earlier attempt" in [event.message for event in learned.events(job_id)]


def test_items_that_were_deleted_meanwhile_are_asked_no_more(learned: Workshop) -> None:
    job_id = learned.queue_job("analyze", {**QUICK, "version": 1, "interventions": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyze, "ablate", dies)
        with pytest.raises(Killed):
            run(learned.services, learned.handlers, job_id, "first")
    gone = json.loads(stored(learned)[f"{job_id}/items/items.jsonl"].partition(b"\n")[0])["item"]
    delete(learned, gone)
    put_back(learned, job_id)
    job = learned.work(job_id)
    assert job.state == "succeeded", job.error
    assert gone.encode() not in b"".join(stored(learned).values())
    assert any("begins anew" in event.message for event in learned.events(job_id))


def delete(workshop: Workshop, trajectory: str) -> uuid.UUID:
    with transaction(workshop.services.sessions) as session:
        subject = DeletionSubject("trajectory", trajectory)
        return delete_data(session, workshop.project_id, subject, "keep", actor="test", reason="").deletion.id


def test_a_deletion_takes_what_was_found_with_it(learned: Workshop) -> None:
    quick = {**QUICK, "version": 1, "interventions": False, "ablations": False}
    job = learned.work(learned.queue_job("analyze", quick))
    item = read(learned, job).map.points[0].item
    deletion = delete(learned, item)
    assert finish_erasure(learned.services.sessions, learned.services.store, deletion)
    assert stored(learned) == {}
    with pytest.raises(AnalysisNotFound):
        read(learned, job)


def test_a_cancelled_job_stops(learned: Workshop) -> None:
    job_id, stop = learned.queue_job("analyze", {**QUICK, "version": 1}), threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        learned.handlers["analyze"](Running(learned.services, job_id, 1, stop))
    assert stored(learned) == {}


def test_without_anything_to_judge_it_says_why(learned: Workshop) -> None:
    with transaction(learned.services.sessions) as session:
        version = get_version(session, get_adapter(session, learned.project_id, "bot"), 1)
    learned.add_task("ungraded", questions(4), {"kind": "likelihood"})
    job = learned.work(learned.queue_job("analyze", {**QUICK, "version": 1, "tasks": ["ungraded"]}))
    assert (job.state, "can be graded" in (job.error or "")) == ("failed", True)
    queued = learned.queue_job("analyze", {**QUICK, "version": 1})
    with transaction(learned.services.sessions) as session:
        withdraw(session, version, actor="test", reason="", evidence={})
    assert "was withdrawn" in (learned.work(queued).error or "")


@pytest.fixture
def judging(settings: Settings, learned: Workshop, tmp_path: Path) -> Iterator[tuple[Workshop, JudgeServer]]:
    """A judge of an upstream that calls every wrong answer a matter of planning."""

    def answer(asked: Any) -> Any:
        return says(json.dumps({"id": asked.code, "reason": "it says tulip", "kind": "planning"}))

    with judge_server(answer) as upstream:
        file = tmp_path / "upstreams.toml"
        file.write_text(f'[strong]\nbase_url = "{upstream.url}"\nmodels = ["grader"]\nprivate = true\n')
        with open_services(settings.model_copy(update={"upstreams": file})) as own:
            with transaction(own.sessions) as session:
                model, rubric = "strong/grader", "Is the answer right?"
                create_judge(
                    session,
                    learned.project_id,
                    name="strict",
                    kind="pointwise",
                    model=model,
                    rubric=rubric,
                    settings=JudgeSettings(),
                )
            yield Workshop(own, learned.project_id, learned.handlers), upstream


def judged(**more: Any) -> dict[str, Any]:
    return {
        **{**QUICK, "version": 1, "interventions": False, "ablations": False},
        **{"judge": "strict", "judge_model": "strong/grader", **more},
    }


def test_a_judge_names_the_kinds_of_wrong_answers_once(judging: tuple[Workshop, JudgeServer]) -> None:
    workshop, upstream = judging
    job = workshop.work(workshop.queue_job("analyze", judged()))
    assert job.state == "succeeded", job.error
    found = read(workshop, job)
    wrong = sum(found.tasks[0].failures.values())
    assert wrong > 0, "the version is hardly trained"
    assert found.tasks[0].failures == {"planning": wrong}
    assert found.kinds_by.model_dump() == {
        **{"judge": "strict", "model": "strong/grader", "by_judge": wrong, "by_rules": 0}
    }
    asked = len(upstream.asked)
    assert 0 < asked <= wrong
    assert "RIGHT ANSWER" in upstream.asked[0].text
    with transaction(workshop.services.sessions) as session:
        calls = session.query(JudgeCall).all()
    assert len(calls) == asked
    assert "tulip" not in str([call.answer for call in calls]), "a kind is kept, no words"
    again = workshop.work(workshop.queue_job("analyze", judged()))
    assert again.result == job.result
    assert len(upstream.asked) == asked


def test_where_the_judge_says_nothing_the_rules_do(judging: tuple[Workshop, JudgeServer]) -> None:
    workshop, upstream = judging
    answers: list[Any] = []

    def answer(asked: Any) -> Any:
        answers.append(asked)
        return says("I would say planning.") if len(answers) < 3 else says(_kind(asked, "other"))

    upstream.answer = answer
    job = workshop.work(workshop.queue_job("analyze", judged(max_calls=3)))
    assert job.state == "succeeded", job.error
    by = read(workshop, job).kinds_by
    assert (by.by_judge, by.by_rules > 0) == (1, True)
    assert len(answers) == 3, "a budget is a budget"
    [warning] = [event.message for event in workshop.events(job.id) if event.level == "warning"]
    assert "the budget of 3 calls being spent" in warning


def test_the_base_itself_names_kinds_held_to_their_names(learned: Workshop) -> None:
    with transaction(learned.services.sessions) as session:
        settings = JudgeSettings(max_answer_tokens=1_200)
        create_judge(
            session, learned.project_id, name="own", kind="pointwise", model="base", rubric="Good?", settings=settings
        )
    job = learned.work(learned.queue_job("analyze", judged(judge="own", judge_model="base", items=2)))
    assert job.state == "succeeded", job.error
    found = read(learned, job)
    assert found.kinds_by.by_judge > 0
    assert found.kinds_by.by_judge + found.kinds_by.by_rules == sum(found.tasks[0].failures.values())


def _kind(asked: Any, kind: str) -> str:
    return json.dumps({"id": asked.code, "reason": "r", "kind": kind})
