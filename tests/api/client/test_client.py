"""The client against the real application."""

import gzip
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from api.client.client import Client, JobUpdate
from api.client.connection import ApiError, ApiUnreachable, _lines_of
from api.local.ports import pick_free_port
from registry import jobs
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.settings import Settings
from registry.trajectories.formats.formats import FORMATS
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.stored import make_adapter, make_gate, make_task, make_version
from tests.api.watched import Watch, watch
from tests.trajectory_samples import PAIRS, chat

__all__ = ["watch"]


@pytest.fixture
def base_settings(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})


@pytest.fixture
def client(base_settings: Settings, api_key: str) -> Iterator[Client]:
    with serve(base_settings) as url, Client(url, api_key) as opened:
        yield opened


def refused(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return error.value.status, error.value.code


def test_import_loads_neither_torch_nor_fastapi() -> None:
    heavy = "{'torch', 'transformers', 'fastapi', 'sqlalchemy'}"
    code = f"import sys, api.client.client; sys.exit(' '.join({heavy} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_tasks_and_uploads(client: Client, tmp_path: Path) -> None:
    task = client.tasks.create("support", grader={"kind": "exact"}, holdout_share=0.5, description="Tickets")
    assert (task["grader"]["kind"], task["holdout_share"]) == ("exact", 0.5)
    assert [each["name"] for each in client.tasks.list()] == ["support"]

    report = client.upload((chat(f"question {n}") for n in range(5)), task="support")
    assert (report["accepted"], report["complete"]) == (5, True)

    lines = [json.dumps(chat(f"question {n}")) for n in range(8)] + ["{"]
    plain, packed = tmp_path / "plain.jsonl", tmp_path / "packed.jsonl.gz"
    plain.write_text("\n".join(lines))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    sent: list[int] = []
    report = client.upload(plain, task="support", on_bytes=sent.append)
    assert (report["accepted"], report["duplicate"], report["refused"]) == (3, 5, 1)
    assert report["lines"][0]["line"] == 9
    assert sum(sent) == plain.stat().st_size
    report = client.upload(str(packed), task="support")
    assert (report["accepted"], report["duplicate"], report["refused"]) == (0, 8, 1)
    assert client.tasks.list()[0]["trajectories"] == 8


def test_an_upload_names_its_format(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "pairs", PAIRS)
    client.tasks.create("t")
    pairs = [{"question": f"{n}+0?", "answer": str(n)} for n in range(3)]
    assert client.upload(pairs, task="t", format="pairs")["accepted"] == 3
    assert client.upload(pairs, task="t", format="openai")["refused"] == 3
    with pytest.raises(ApiError, match="expected one of: atif, chat, ") as error:
        client.upload(pairs, task="t", format="csv")
    assert refused(error) == (422, "invalid")


def test_trajectories_are_read_back_page_by_page(client: Client) -> None:
    client.tasks.create("t", holdout_share=0.3)
    report = client.upload((chat(f"question {n}") for n in range(230)), task="t")
    everything = list(client.trajectories.list(task="t"))
    assert [each["messages"][0]["content"] for each in everything] == [f"question {n}" for n in range(230)]
    assert len(list(client.trajectories.list(task="t", held_out=True))) == report["held_out"]
    assert len(list(client.trajectories.list(held_out=False))) == 230 - report["held_out"]


def test_an_upload_sends_while_it_reads(client: Client) -> None:
    """A source is asked for more only after what it gave was sent: nothing gathers in memory."""
    client.tasks.create("support")
    sent: list[int] = []
    sent_when_asked: list[int] = []

    def items() -> Iterator[dict[str, Any]]:
        for n in range(40):
            sent_when_asked.append(sum(sent))
            yield chat(f"question {n}", answer="word " * 80, metadata={"padding": "x" * 10_000})

    assert client.upload(items(), task="support", on_bytes=sent.append)["accepted"] == 40
    # Of some 430 kB no more than one block and one item were ever waiting.
    assert sent_when_asked[-1] > 300_000


def test_errors_carry_status_code_and_detail(client: Client, base_settings: Settings) -> None:
    with pytest.raises(ApiError, match="nowhere") as error:
        client.upload([chat()], task="nowhere")
    assert refused(error) == (404, "task_not_found")
    with pytest.raises(ApiError, match="bot") as error:
        client.versions.list("bot")
    assert refused(error) == (404, "adapter_not_found")
    with pytest.raises(ApiError) as error:
        client.adapters.get("a/../b?c")
    assert error.value.status == 404
    with pytest.raises(ApiError, match="job_id") as error:
        client.jobs.get("7")
    assert refused(error) == (422, "invalid_request")
    with pytest.raises(ApiError, match="bot") as error:  # OpenAI's shape
        client.chat("bot", [{"role": "user", "content": "hi"}])
    assert refused(error) == (404, "model_not_found")


def test_a_wrong_key_is_told_also_in_the_middle_of_a_large_upload(base_settings: Settings, api_key: str) -> None:
    with serve(base_settings) as url, Client(url, "mg_wrong") as client:
        for call in (client.tasks.list, lambda: client.upload(chat(answer="x" * 1000) for _ in range(20_000))):
            with pytest.raises(ApiError) as error:
                call()
            assert refused(error) == (401, "unknown_key")
        assert api_key not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[", "http://127.0.0.1:70000"])
def test_unreachable_says_where_and_what_to_do(url: str) -> None:
    with pytest.raises(ApiUnreachable) as error, Client(url, "mg_any") as client:
        client.tasks.list()
    assert url in str(error.value)
    assert "memgen up" in str(error.value)
    assert "MEMGEN_API_URL" in str(error.value)


def test_an_answer_that_is_no_memgen_reply_is_an_error(servers: Any) -> None:
    s3 = servers.s3_url.replace(servers.s3_url.split("//")[1].split("@")[0] + "@", "")
    with Client(s3, "mg_any") as client, pytest.raises(ApiError, match="MEMGEN_API_URL"):
        client.tasks.list()


def test_adapters_versions_and_aliases(client: Client, services: Services, project_id: uuid.UUID) -> None:
    assert client.adapters.create("new", memory={"latents": 4})["memory"]["latents"] == 4
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id), make_task(session, project_id, "t")
        for _ in range(2):
            make_gate(session, make_version(session, adapter, task), task, before=0.1, after=0.5)
        make_version(session, adapter, task)
    assert [each["name"] for each in client.adapters.list()] == ["bot", "new"]
    assert [each["verdict"] for each in client.versions.list("bot")] == ["passed", "passed", "unchecked"]
    assert client.versions.get("bot", 1)["gate"]["comparisons"][0]["candidate"] == 0.5
    assert client.promote("bot", 1, expected=0)["to_version"] == 1
    assert client.promote("bot", 2, reason="better")["from_version"] == 1
    with pytest.raises(ApiError) as error:
        client.promote("bot", 1, expected=1)
    assert refused(error) == (409, "stale_alias")
    with pytest.raises(ApiError) as error:
        client.promote("bot", 3)
    assert refused(error) == (403, "gate_not_passed")
    assert client.rollback("bot", expected=2)["to_version"] == 1
    assert client.rollback("bot", to=2)["to_version"] == 2
    moves = [move["kind"] for move in client.aliases.history("bot")]
    assert moves == ["promotion", "promotion", "rollback", "rollback"]
    assert client.adapters.get("bot")["aliases"] == {"champion": 2}
    assert client.adapters.scores("bot")["tasks"] == ["t"]


def test_a_creation_sent_twice_with_one_idempotency_key_creates_once(client: Client) -> None:
    client.tasks.create("t")
    first = client.adapters.create("bot", idempotency_key="a")
    assert client.adapters.create("bot", idempotency_key="a") == first
    assert client.train("bot", "t", idempotency_key="b") == client.train("bot", "t", idempotency_key="b")
    assert len(client.jobs.list()["data"]) == 1


def test_jobs(client: Client, services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id), make_task(session, project_id, "t")
        make_version(session, adapter, task)
    job = client.train("bot", "t", training={"steps": 3}, promote=False)
    assert (job["params"]["training"]["steps"], job["params"]["promote"]) == (3, False)
    assert client.jobs.evaluate("bot", 1)["kind"] == "evaluate"
    assert client.jobs.get(job["id"])["state"] == "queued"
    first = client.jobs.list(limit=1)
    assert client.jobs.list(limit=1, cursor=first["next_cursor"])["data"][0]["id"] == job["id"]
    assert client.jobs.cancel(job["id"])["state"] == "cancelled"
    assert [each["message"] for each in client.jobs.events(job["id"])] == ["queued", "cancelled before it began"]
    with pytest.raises(ApiError) as error:
        client.jobs.cancel(job["id"])
    assert refused(error) == (409, "job_state_conflict")


def test_following_outlives_a_restart_of_the_api_without_loss_or_repetition(
    base_settings: Settings, services: Services, api_key: str, project_id: uuid.UUID
) -> None:
    port = pick_free_port()
    with transaction(services.sessions) as session:
        job = jobs.create_job(session, project_id, TrainWeaver("t"), make_adapter(session, project_id))
        job_id = job.id
        session.flush()
        attempt = jobs.claim(session, job_id, "test", 60) or 0
    with Client(f"http://127.0.0.1:{port}", api_key) as client:
        updates = client.follow(str(job_id))
        with serve(base_settings, port=port):
            assert next(updates).data["message"] == "queued"
            assert next(updates).data["state"] == "running"
        with transaction(services.sessions) as session:
            jobs.add_event(session, job_id, "info", "while nobody listened")
            jobs.finish(session, job_id, attempt, "succeeded", result={"version": 1})
        with serve(base_settings, port=port):
            rest = list(updates)
    told = [(each.kind, each.data.get("message") or each.data["state"]) for each in rest]
    assert told == [("event", "while nobody listened"), ("event", "succeeded"), ("job", "succeeded")]


def test_following_gives_up_when_the_api_stays_away(api_key: str) -> None:
    with Client("http://127.0.0.1:1", api_key) as client, pytest.raises(ApiUnreachable):
        list(client.follow(str(uuid.uuid4()), patience_seconds=0.0))


def test_following_an_unknown_job_fails_at_once(client: Client) -> None:
    with pytest.raises(ApiError) as error:
        list(client.follow(str(uuid.uuid4())))
    assert refused(error) == (404, "job_not_found")


def test_following_an_ended_job_from_a_known_event(client: Client, services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        make_adapter(session, project_id)
        make_task(session, project_id, "t")
    job = client.jobs.cancel(client.train("bot", "t")["id"])
    last = client.jobs.events(job["id"])[-1]["seq"]
    assert list(client.follow(job["id"], after=last)) == [JobUpdate("job", client.jobs.get(job["id"]))]


def test_keys(client: Client) -> None:
    created = client.keys.create("agent", ["read"])
    assert created["key"].startswith(created["hint"])
    assert [each["name"] for each in client.keys.list()] == ["bootstrap", "agent"]
    assert client.keys.revoke(created["id"])["revoked_at"]


def test_chat_whole_and_as_it_is_written(base_settings: Settings, api_key: str, watch: Watch) -> None:
    messages = [{"role": "user", "content": "hi"}]
    with serve(base_settings, serve_model=True) as url, Client(url, api_key) as client:
        answer = client.chat("base", messages, max_tokens=20, temperature=0)
        assert answer["memgen"]["version"] is None
        assert answer["usage"]["completion_tokens"] == 20
        watch.hold(after=3)
        chunks = client.stream_chat("base", messages, max_tokens=20, temperature=0)
        told = [next(chunks), next(chunks)]
        watch.go()
        told += chunks
        with pytest.raises(ApiError) as error:
            next(client.stream_chat("nobody", messages))
        assert refused(error) == (404, "model_not_found")
        watch.fail_at = watch.steps + 3
        with pytest.raises(ApiError) as error:
            list(client.stream_chat("base", messages, temperature=0))
        assert error.value.code == "internal_error"
    text = "".join(choice["delta"].get("content") or "" for chunk in told for choice in chunk["choices"])
    assert text == answer["choices"][0]["message"]["content"]
    assert told[-1]["usage"] == answer["usage"]
    assert told[-2]["memgen"]["version"] is None


def test_an_answer_that_breaks_off_is_an_error(base_settings: Settings, api_key: str, watch: Watch) -> None:
    watch.step_seconds = 0.05
    with ThreadPoolExecutor(1) as pool:
        with serve(base_settings, serve_model=True) as url:
            client = Client(url, api_key)
            chunks = client.stream_chat("base", [{"role": "user", "content": "hi"}], max_tokens=900, temperature=0)
            next(chunks)
            reading = pool.submit(list, chunks)
        with client, pytest.raises(ApiUnreachable):
            reading.result(timeout=20)


def test_a_line_of_a_stream_ends_at_a_newline_only() -> None:
    text = "a\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1eb"
    stream = f"data: {text}\r\n\ndata: é{text}\n\n: torn".encode()
    for size in (1, 2, 7, len(stream)):
        chunks = (stream[start : start + size] for start in range(0, len(stream), size))
        assert list(_lines_of(chunks)) == [f"data: {text}", "", f"data: é{text}", ""]
