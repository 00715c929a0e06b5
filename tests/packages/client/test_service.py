"""The three clients against the real application."""

import asyncio
import gzip
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.local.ports import pick_free_port
from memgen_client import (
    ApiError,
    ApiUnreachable,
    AsyncClient,
    Client,
    Conflict,
    Invalid,
    Job,
    JobEnded,
    JobEvent,
    JsonClient,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    WaitTimedOut,
)
from registry import jobs
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.settings import Settings
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.stored import make_adapter, make_gate, make_scores, make_task, make_version
from tests.api.watched import Watch, watch
from tests.trajectory_samples import chat

__all__ = ["watch"]


def make_versions(services: Services, project_id: uuid.UUID) -> None:
    """An adapter with two versions that passed their gates, and scores of both and of the base."""
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id), make_task(session, project_id, "t")
        versions = [make_version(session, adapter, task) for _ in range(2)]
        for version in versions:
            make_gate(session, version, task, before=0.1, after=0.5)
        make_scores(session, adapter, task, {None: 0.1, versions[0]: 0.5, versions[1]: 0.6})


def make_running_job(services: Services, project_id: uuid.UUID) -> tuple[uuid.UUID, int]:
    """Id of a job that runs, and number of its attempt."""
    with transaction(services.sessions) as session:
        job_id = jobs.create_job(session, project_id, TrainWeaver("t"), make_adapter(session, project_id)).id
        session.flush()
        return job_id, jobs.claim(session, job_id, "test", 60) or 0


def finish(services: Services, job_id: uuid.UUID, attempt: int, state: str, error: str | None = None) -> None:
    with transaction(services.sessions) as session:
        jobs.add_event(session, job_id, "info", "almost")
        result = {"version": 1} if state == "succeeded" else None
        jobs.finish(session, job_id, attempt, state, result=result, error=error)


def test_uploads_of_files_and_of_anything_that_gives_trajectories(url: str, api_key: str, tmp_path: Path) -> None:
    lines = [json.dumps(chat(f"question {n}")) for n in range(8)] + ["{"]
    packed = tmp_path / "runs.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(lines).encode()))
    told: list[tuple[int, int | None]] = []
    with Client(url, api_key) as client:
        task = client.tasks.create("support", grader={"kind": "exact"}, holdout_share=0.5, description="Tickets")
        assert (task.grader["kind"], task.holdout_share) == ("exact", 0.5)
        report = client.trajectories.upload((chat(f"question {n}") for n in range(5)), task="support")
        assert (report.accepted, report.complete) == (5, True)
        report = client.trajectories.upload(packed, task="support", on_progress=lambda *sent: told.append(sent))
        assert (report.accepted, report.duplicate, report.refused) == (3, 5, 1)
        assert (report.lines[0].line, report.lines[0].status) == (9, "refused")
        assert told == [(packed.stat().st_size, packed.stat().st_size)]
        report = client.trajectories.create([chat("one more"), {"messages": []}], task="support")
        assert [line.status for line in report.lines] == ["accepted", "refused"]
        assert client.tasks.get("support").trajectories == 9
        held_out = [*client.trajectories.all(task="support", held_out=True)]
        assert len(held_out) == client.tasks.list()[0].held_out
        assert all(each.held_out and each.messages is None for each in held_out)
        said = next(iter(client.trajectories.all(include_messages=True)))
        assert (said.messages or [{}])[0]["content"] == "question 0"
        given = client.feedback.give(0.25, trajectory=said.id, source="environment", comment="slow")
        assert given.trajectories == [said.id]
        assert [each.reward for each in client.trajectories.get(said.id).rewards] == [0.25]
        assert [each.comment for each in client.feedback.all(search="slow")] == ["slow"]
        assert client.trajectories.lineage(said.id).task == "support"
        deletion = client.deletions.create("trajectory", said.id)
        assert (deletion.id, len(deletion.trajectories)) == (None, 1)


def test_pages_are_fetched_as_they_are_read(url: str, api_key: str) -> None:
    with Client(url, api_key) as client:
        client.tasks.create("t")
        client.trajectories.upload((chat(f"question {n}") for n in range(230)), task="t")
        everything = [each.id for each in client.trajectories.all(task="t")]
        assert len(set(everything)) == 230
        first = client.trajectories.list(task="t", limit=2)
        second = client.trajectories.list(task="t", limit=2, cursor=first.next_cursor)
        assert [each.id for each in (*first, *second)] == everything[:4]


def test_refusals_are_exceptions_of_their_kind(url: str, api_key: str) -> None:
    with Client(url, api_key) as client:
        with pytest.raises(NotFound, match="nowhere") as missing:
            client.trajectories.upload([chat()], task="nowhere")
        assert (missing.value.status, missing.value.code) == (404, "task_not_found")
        assert missing.value.advice == "`memgen task list`"
        assert missing.value.request_id
        with pytest.raises(Invalid) as invalid:
            client.deletions.create("nobody", "x")
        assert (invalid.value.code, invalid.value.param) == ("invalid_request", "scope")
        with pytest.raises(NotFound) as model:  # OpenAI's shape
            client.chat.create("bot", [{"role": "user", "content": "hi"}])
        assert (model.value.code, model.value.param) == ("model_not_found", "model")
        with pytest.raises(NotFound):
            client.adapters.get("a/../b?c")
        client.adapters.create("bot", idempotency_key="a")
        with pytest.raises(Conflict) as taken:
            client.adapters.create("bot")
        assert taken.value.code == "name_taken"
        reader = client.keys.create("reader", ["read"])
    with Client(url, reader.key) as client, pytest.raises(NotAllowed) as scope:
        client.tasks.create("t")
    assert scope.value.code == "missing_scope"
    with Client(url, "mg_wrong") as client:
        for call in (
            client.tasks.list,
            lambda: client.trajectories.upload(chat(answer="x" * 999) for _ in range(9999)),
        ):
            with pytest.raises(NotAuthenticated) as unknown:
                call()
            assert unknown.value.code == "unknown_key"


@pytest.mark.parametrize("nowhere", ["http://127.0.0.1:1", "nonsense", "http://[", "http://127.0.0.1:70000"])
def test_unreachable_says_where_and_what_to_do(nowhere: str) -> None:
    with pytest.raises(ApiUnreachable) as error, Client(nowhere, "mg_any", retries=0) as client:
        client.tasks.list()
    assert nowhere in str(error.value)
    assert "memgen up" in str(error.value)


def test_adapters_versions_gates_aliases_and_routes(
    url: str, api_key: str, services: Services, project_id: uuid.UUID, tmp_path: Path
) -> None:
    make_versions(services, project_id)
    folder = tmp_path / "exports"
    folder.mkdir()
    with Client(url, api_key) as client:
        adapter = client.adapters.create("new", memory={"latents": 4}, gate_margin=0.1)
        assert (adapter.memory["latents"], adapter.gate_margin, adapter.champion) == (4, 0.1, None)
        assert client.adapters.change("new", retry_replay_share=0.5, reason="try").retry_replay_share == 0.5
        assert client.adapters.change("new", retry_replay_share=None).retry_replay_share is None
        assert [change.reason for change in client.adapters.changes("new")] == ["try", ""]
        assert [each.verdict for each in client.versions.all("bot")] == ["passed", "passed"]
        assert client.gates.get("bot", 1).comparisons[0]["candidate"] == 0.5
        assert client.aliases.promote("bot", 1, expected=0).to_version == 1
        with pytest.raises(Conflict) as stale:
            client.aliases.promote("bot", 2, expected=2)
        assert stale.value.code == "stale_alias"
        route = client.routes.create("bot", "ab", arms=[{"version": 1, "weight": 0.5}, {"version": 2, "weight": 0.5}])
        assert client.routes.results("bot", route.number).arms[1].difference is not None
        assert client.routes.end("bot", route.number, reason="enough").history[-1].reason == "enough"
        client.aliases.promote("bot", 2, reason="better")
        assert client.aliases.rollback("bot", expected=2).to_version == 1
        assert [move.kind for move in client.aliases.all_history("bot")] == ["promotion", "promotion", "rollback"]
        assert client.adapters.get("bot").champion == client.aliases.get("bot").version == 1
        scores = client.adapters.scores("bot")
        assert (scores.tasks, scores.versions["2"]["t"].score) == (["t"], 0.6)
        assert client.versions.compare("bot", 1, 2).changes["t"] == pytest.approx(0.1)
        assert client.versions.tag("bot", 2, "good").tags == ["good"]
        assert [state.tags for state in client.versions.all_states("bot")] == [[], ["good"]]
        assert client.versions.lineage("bot", 2).aliases == []
        assert client.retention.get("bot").dry_run
        with pytest.raises(ApiError):
            client.versions.export_file("bot", 1, folder / "v.tar")  # its bytes are not in the store
        assert [*folder.iterdir()] == []


def test_a_job_is_followed_over_a_restart_of_the_service_without_loss_or_repetition(
    base_settings: Settings, services: Services, api_key: str, project_id: uuid.UUID
) -> None:
    port = pick_free_port()
    job_id, attempt = make_running_job(services, project_id)
    with Client(f"http://127.0.0.1:{port}", api_key) as client:
        updates = client.jobs.follow(str(job_id))
        with serve(base_settings, port=port):
            first, second = next(updates), next(updates)
            assert isinstance(first, JobEvent)
            assert isinstance(second, Job)
            assert (first.message, second.state, second.has_ended) == ("queued", "running", False)
        finish(services, job_id, attempt, "succeeded")
        with serve(base_settings, port=port):
            rest = [each.message if isinstance(each, JobEvent) else each.state for each in updates]
    assert rest == ["almost", "succeeded", "succeeded"]


def test_waiting_for_jobs(url: str, api_key: str, services: Services, project_id: uuid.UUID) -> None:
    job_id, attempt = make_running_job(services, project_id)
    told: list[Job | JobEvent] = []
    with Client(url, api_key) as client, ThreadPoolExecutor(1) as pool:
        with pytest.raises(WaitTimedOut):
            client.jobs.wait(str(job_id), timeout=0.3)
        waiting = pool.submit(client.jobs.wait, str(job_id), on_update=told.append)
        finish(services, job_id, attempt, "succeeded")
        assert waiting.result(timeout=30).version == 1
        assert [each.message for each in told if isinstance(each, JobEvent)][-1] == "succeeded"
        with pytest.raises(NotFound):
            client.jobs.wait(str(uuid.uuid4()))
    with Client("http://127.0.0.1:1", api_key) as client, pytest.raises(ApiUnreachable):
        client.jobs.wait(str(job_id), patience_seconds=0.0)


def test_a_job_that_failed_says_why(url: str, api_key: str, services: Services, project_id: uuid.UUID) -> None:
    job_id, attempt = make_running_job(services, project_id)
    finish(services, job_id, attempt, "failed", error="training_diverged: nan")
    with Client(url, api_key) as client:
        with pytest.raises(JobEnded, match=f"job {job_id} has failed: training_diverged: nan") as ended:
            client.jobs.wait(str(job_id))
        assert (ended.value.state, ended.value.job_id) == ("failed", str(job_id))
        assert client.jobs.wait(str(job_id), check=False).error == "training_diverged: nan"


def test_answers_whole_and_as_they_are_written(base_settings: Settings, api_key: str, watch: Watch) -> None:
    messages = [{"role": "user", "content": "hi"}]
    with serve(base_settings, serve_model=True) as url, Client(url, api_key) as client:
        answer = client.chat.create("base", messages, max_tokens=20, temperature=0)
        assert answer.memgen is not None
        assert answer.usage is not None
        assert (answer.memgen.version, answer.usage.completion_tokens) == (None, 20)
        watch.hold(after=3)
        chunks = client.chat.stream("base", messages, max_tokens=20, temperature=0)
        told = [next(chunks), next(chunks)]  # written while the rest is not
        watch.go()
        told += chunks
        assert "".join(chunk.text for chunk in told) == answer.text
        assert (told[-1].usage, told[-2].memgen is not None) == (answer.usage, True)
        with pytest.raises(NotFound):
            next(client.chat.stream("nobody", messages))
        text = client.completions.create("base", "once", max_tokens=3, temperature=0, logprobs=1)
        assert (text.choices[0].logprobs or {})["text_offset"]
        said = client.messages.create({"model": "base", "max_tokens": 3, "messages": messages})
        assert said["type"] == "message"
        assert client.messages.count_tokens({"model": "base", "messages": messages}).input_tokens > 0
        response = client.responses.create({"model": "base", "input": "hi", "max_output_tokens": 3, "store": True})
        assert client.responses.get(str(response["id"]))["output"] == response["output"]
        assert client.responses.delete(str(response["id"])).deleted
        assert [model.id for model in client.models.list()] == ["base"]
        assert client.models.get("base").owned_by == "memgen"
        assert client.base.get().accepted
        watch.fail_at = watch.steps + 3
        with pytest.raises(ApiError) as broken:
            list(client.chat.stream("base", messages, temperature=0))
        assert broken.value.code == "internal_error"


def test_what_the_service_runs_with(url: str, api_key: str) -> None:
    with Client(url, "") as client:  # health asks for no key
        assert client.health.live().status == "ok"
        ready = client.health.ready()  # without a model, so 503, which is an answer here
        assert (ready.status, ready.checks["database"]) == ("not ready", "ok")
        with pytest.raises(NotAuthenticated):
            client.tasks.list()
    with Client(url, api_key) as client:
        key = client.keys.create("agent", ["read"])
        assert key.key.startswith(key.hint)
        assert client.keys.revoke(key.id).revoked_at is not None
        judge = client.judges.create("strict", "base", "Polite.", scale=5)
        assert (judge.settings["scale"], client.judges.get("strict").mean_score) == (5, None)
        assert [*client.judges.all_judgements(judge="strict")] == []
        hook = client.webhooks.create("h", "https://example.com/hook", events=["job.failed"])
        assert hook.secret.startswith("whsec_")
        assert client.webhooks.test("h").event == "webhook.test"
        assert [each.state for each in client.webhooks.all_deliveries("h")] == ["pending"]
        assert client.webhooks.redeliver_given_up("h") == 0
        assert client.recordings.set_policy("all", share=0.5).share == 0.5
        assert client.recordings.get().policies[0].mode == "all"
        assert [*client.recordings.all_runs()] == []
        assert client.upstreams.list() == []
        assert client.garbage.collect().dry_run
        assert client.trajectories.send_spans({"resourceSpans": []}) == {}


def test_loops_and_schedules(url: str, api_key: str) -> None:
    with Client(url, api_key) as client:
        made = client.loops.create("bot", "t", create=True, every="night", grader={"kind": "exact"})
        assert {part.part for part in made.setup} >= {"adapter", "task", "loop"}
        assert client.loops.get("bot").waiting.new == 0
        assert client.loops.pause("bot").paused
        assert not client.loops.resume("bot").paused
        assert client.loops.list()[0].name == "bot"
        assert [*client.loops.all_history("bot")][-1].kind == "created"
        assert client.loops.delete("bot").stays
        client.schedules.create("nightly", "bot", "t", cron="0 3 * * *", training={"steps": 1})
        assert client.schedules.change("nightly", paused=True).paused
        assert len(client.schedules.history("nightly")) == 2
        assert [*client.schedules.all_runs("nightly")] == []
        assert client.schedules.delete("nightly").name == "nightly"


def test_the_asynchronous_client(
    base_settings: Settings, api_key: str, services: Services, project_id: uuid.UUID, tmp_path: Path
) -> None:
    make_versions(services, project_id)
    with transaction(services.sessions) as session:
        job_id = str(jobs.list_jobs(session, project_id, before=None, limit=1)[0].id)
    file = tmp_path / "files" / "runs.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(chat()))
    messages = [{"role": "user", "content": "hi"}]

    async def story(url: str) -> None:
        async with AsyncClient(url, api_key) as client:
            report = await client.trajectories.upload(file, task="t")
            assert (report.accepted, report.complete) == (1, True)
            adapters, scores = await asyncio.gather(client.adapters.list(), client.adapters.scores("bot"))
            assert ([each.name for each in adapters], scores.tasks) == (["bot"], ["t"])
            assert [version.number async for version in client.versions.all("bot")] == [1, 2]
            job = await client.jobs.cancel(job_id)
            told = [each.state async for each in client.jobs.follow(job_id) if isinstance(each, Job)]
            assert told == [job.state] == ["cancelled"]
            with pytest.raises(JobEnded):
                await client.jobs.wait(job_id)
            assert (await client.jobs.wait(job_id, check=False)).has_ended
            answer = await client.chat.create("base", messages, max_tokens=5, temperature=0)
            chunks = client.chat.stream("base", messages, max_tokens=5, temperature=0)
            assert "".join([chunk.text async for chunk in chunks]) == answer.text
            with pytest.raises(NotFound):
                await client.adapters.get("nobody")
            with pytest.raises(ApiError):
                await client.versions.export_file("bot", 1, file.parent / "v.tar")
            assert [*file.parent.iterdir()] == [file]
        async with AsyncClient("http://127.0.0.1:1", api_key, retries=1) as client:
            with pytest.raises(ApiUnreachable):
                await client.tasks.list()

    with serve(base_settings, serve_model=True) as url:
        asyncio.run(story(url))


def test_the_json_client_returns_what_the_service_said(
    url: str, api_key: str, services: Services, project_id: uuid.UUID
) -> None:
    make_versions(services, project_id)
    with JsonClient(url, api_key) as client:
        assert client.adapters.get("bot")["name"] == "bot"
        assert [each["name"] for each in client.adapters.list()] == ["bot"]
        assert [each["number"] for each in client.versions.all("bot")] == [1, 2]
        assert set(client.versions.list("bot")) == {"data", "next_cursor"}
        job_id = client.jobs.list()["data"][0]["id"]
        assert client.jobs.cancel(job_id)["state"] == "cancelled"
        updates = [(each.kind, each.data.get("message") or each.data["state"]) for each in client.jobs.follow(job_id)]
        assert updates[-1] == ("job", "cancelled")
        assert client.jobs.wait(job_id, check=False)["state"] == "cancelled"
