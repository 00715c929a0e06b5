"""Traffic by routes with the stock `openai` client: two replicas, real memories of a tiny base, feedback, shadows."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.models import Exposure, ShadowAnswer, Version
from registry.serving.aliases import promote
from registry.settings import Settings
from registry.versions.records import get_version, register_version
from tests.api.live_api import serve
from tests.api.stored import make_gate
from tests.api.watched import Watch, watch
from tests.workers.conftest import Workshop, settings, workshop

__all__ = ["settings", "watch", "workshop"]

ASKED: list[Any] = [{"role": "user", "content": "y1"}]


@pytest.fixture
def bot(workshop: Workshop) -> None:
    """Version 1 says `yes` and is the champion; 2 is the same memory under another number; 3 is broken, unchecked."""
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    with transaction(workshop.services.sessions) as session:
        adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
        first = get_version(session, adapter, 1)
        for key, digest in ((first.artifact_key, first.artifact_hash), ("versions/nowhere", "0" * 64)):
            job = jobs.create_job(session, workshop.project_id, TrainWeaver("t"), adapter)
            job.dataset_id = first.dataset_id
            register_version(
                session,
                job,
                adapter,
                parent_id=first.id,
                artifact_key=key,
                artifact_hash=digest,
                code_version="test",
                report={"flags": []},
            )
        make_gate(session, get_version(session, adapter, 2), first.dataset.task, before=0.25, after=0.5)


@pytest.fixture
def urls(settings: Settings, bot: None) -> Iterator[tuple[str, str]]:
    """Two replicas of the API. One loads its model after the other: transformers can't do both in one process."""
    with serve(settings, serve_model=True) as one:
        _eventually(lambda: httpx.get(f"{one}/readyz").is_success, 60)
        with serve(settings, serve_model=True) as other:
            _eventually(lambda: httpx.get(f"{other}/readyz").is_success, 60)
            yield one, other


@pytest.fixture
def http(urls: tuple[str, str], api_key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=urls[0], headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def clients(urls: tuple[str, str], api_key: str) -> Iterator[list[openai.OpenAI]]:
    made = [openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0) for url in urls]
    yield made
    for client in made:
        client.close()


def _ask(client: openai.OpenAI, session_id: str | None = None, **options: Any) -> Any:
    more = {"extra_headers": {"X-Session-Id": session_id}} if session_id else {}
    return client.chat.completions.create(
        model="bot", messages=ASKED, **{"max_tokens": 3, "temperature": 0, **more, **options}
    )


def _start(http: httpx.Client, **body: Any) -> None:
    reply = http.post("/v1/adapters/bot/routes", json=body)
    assert reply.status_code == 201, reply.text


def _eventually(check: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_sessions_stick_to_a_version_on_every_replica(
    http: httpx.Client, clients: list[openai.OpenAI], workshop: Workshop
) -> None:
    _start(http, kind="ab", arms=[{"version": 1, "weight": 0.5}, {"version": 2, "weight": 0.5}])
    one, other = clients
    drawn = {f"s{n}": _ask(one, f"s{n}") for n in range(8)}
    assert {answer.model for answer in drawn.values()} == {"bot@1", "bot@2"}
    for session_id, answer in drawn.items():
        assert _ask(other, session_id).model == answer.model
        assert _ask(other, metadata={"session_id": session_id}).model == answer.model
        assert _ask(other, user=session_id).model == answer.model
        # The header wins over metadata, and that over user.
        assert _ask(one, session_id, metadata={"session_id": "x"}, user="y").model == answer.model
    stamp = drawn["s0"].model_extra["memgen"]
    assert (stamp["route"], stamp["alias"], f"bot@{stamp['version']}") == (1, None, drawn["s0"].model)
    with transaction(workshop.services.sessions) as session:
        rows = session.execute(
            sa.select(Exposure.session_id, Version.number).join(Version, Exposure.version_id == Version.id)
        ).all()
    assert len(rows) == 8 * 5
    assert {f"bot@{number}" for session_id, number in rows if session_id == "s0"} == {drawn["s0"].model}
    with pytest.raises(openai.BadRequestError, match="session id"):
        _ask(one, "x" * 600)


OTHER_APIS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"input": ASKED, "max_output_tokens": 3},
    "/v1/messages": {"messages": ASKED, "max_tokens": 3},
    "/v1/completions": {"prompt": "<|im_start|>user\ny1<|im_end|>\n<|im_start|>assistant\n", "max_tokens": 3},
}


@pytest.mark.parametrize("path", OTHER_APIS)
def test_other_apis_go_by_the_same_route(http: httpx.Client, clients: list[openai.OpenAI], path: str) -> None:
    _start(http, kind="ab", arms=[{"version": 1, "weight": 0.5}, {"version": 2, "weight": 0.5}])
    body = {"model": "bot", "temperature": 0, **OTHER_APIS[path]}
    seen = set()
    for session_id in (f"s{n}" for n in range(6)):
        version = _ask(clients[0], session_id).model
        seen.add(version)
        headers = {"X-Session-Id": session_id}
        answer = http.post(path, json=body, headers=headers)
        stamp = answer.json()["memgen"]
        assert answer.headers["x-memgen-version"] == answer.json()["model"] == version
        assert (f"bot@{stamp['version']}", stamp["route"], len(stamp["insertions"])) == (version, 1, 1)
        given = http.post("/v1/feedback", json={"completion_id": answer.json()["id"], "reward": 1.0}).json()
        assert (given["model"], given["session_id"], given["route"]) == (version, session_id, 1)
        with http.stream("POST", path, json={**body, "stream": True}, headers=headers) as stream:
            assert stream.headers["x-memgen-version"] == version
            assert '"memgen"' in stream.read().decode()
    assert seen == {"bot@1", "bot@2"}


@pytest.mark.parametrize("path", OTHER_APIS)
def test_a_shadow_answers_other_apis_too(http: httpx.Client, path: str) -> None:
    _start(http, kind="shadow", version=2)
    answer = http.post(path, json={"model": "bot", "temperature": 0, **OTHER_APIS[path]})
    assert answer.headers["x-memgen-version"] == "bot@1"
    assert "yes" in answer.text

    def compared() -> bool:
        found = http.get("/v1/adapters/bot/routes/1/results").json()["shadow"]
        return bool((found["answers"], found["same"], found["failed"]) == (1, 1.0, 0))

    _eventually(compared)


def test_a_streamed_answer_can_be_rated_before_it_ends(http: httpx.Client, clients: list[openai.OpenAI]) -> None:
    with _ask(clients[0], "anna", stream=True) as stream:
        first = next(iter(stream))
        given = http.post("/v1/feedback", json={"completion_id": first.id, "reward": 1.0})
        assert given.status_code == 201
        assert (given.json()["model"], given.json()["session_id"]) == (first.model, "anna")
        assert "memgen" in (list(stream)[-1].model_extra or {})
    base = clients[0].chat.completions.create(model="base", messages=ASKED, max_tokens=1)
    assert http.post("/v1/feedback", json={"completion_id": base.id, "reward": 0}).json()["model"] == "base"


def test_a_stopped_canary_is_gone_from_every_replica_within_a_second(
    http: httpx.Client, clients: list[openai.OpenAI]
) -> None:
    _start(http, kind="canary", version=2, share=0.5)
    on_canary = set()
    for number in range(60):
        answer = _ask(clients[number % 2], f"s{number}", max_tokens=1)
        on_canary |= {f"s{number}"} if answer.model == "bot@2" else set()
        reward = 1.0 if answer.model == "bot@1" else 0.0
        if http.post("/v1/feedback", json={"completion_id": answer.id, "reward": reward}).json()["stopped"]:
            break
    else:
        pytest.fail("the canary was never stopped")
    # Not within a second: from the next request on.
    for client in clients:
        assert {_ask(client, session_id, max_tokens=1).model for session_id in sorted(on_canary)[:6]} == {"bot@1"}


def test_answers_in_flight_end_on_the_version_they_began_with(
    http: httpx.Client, clients: list[openai.OpenAI], watch: Watch
) -> None:
    _start(http, kind="canary", version=2, share=0.5)
    mine = next(s for s in (f"s{n}" for n in range(50)) if _ask(clients[0], s, max_tokens=1).model == "bot@2")
    begun = watch.joined
    watch.hold(after=1)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(_ask, clients[0], mine)
        _eventually(lambda: watch.joined > begun)
        assert http.patch("/v1/adapters/bot/routes/1", json={"state": "ended"}).status_code == 200
        watch.go()
        answer = going.result(timeout=60)
    assert answer.model == "bot@2"
    given = http.post("/v1/feedback", json={"completion_id": answer.id, "reward": 0.0}).json()
    assert (given["model"], given["route"], given["stopped"]) == ("bot@2", 1, False)
    assert _ask(clients[0], mine).model == "bot@1"


@pytest.mark.parametrize("stream", [False, True])
def test_a_shadow_answers_out_of_band(
    http: httpx.Client, clients: list[openai.OpenAI], workshop: Workshop, stream: bool
) -> None:
    _start(http, kind="shadow", version=2)
    if stream:
        with _ask(clients[0], stream=True, max_tokens=8) as chunks:
            assert {chunk.model for chunk in chunks} == {"bot@1"}
    else:
        answer = _ask(clients[0], max_tokens=8)
        assert (answer.model, answer.choices[0].message.content) == ("bot@1", "yes")

    def shadow() -> dict[str, Any]:
        found: dict[str, Any] = http.get("/v1/adapters/bot/routes/1/results").json()["shadow"]
        return found

    _eventually(lambda: shadow()["answers"] == 1)
    found = shadow()
    assert (found["same"], found["similarity"], found["failed"]) == (1.0, 1.0, 0)
    assert found["tokens"] == {"returned": 3.0, "shadow": 3.0}
    assert found["seconds"]["shadow"] > 0
    with transaction(workshop.services.sessions) as session:
        # No exposure of its own: feedback goes to what was returned.
        assert session.scalar(sa.select(sa.func.count()).select_from(Exposure)) == 1


def test_a_broken_shadow_breaks_nothing(http: httpx.Client, clients: list[openai.OpenAI]) -> None:
    _start(http, kind="shadow", version=3)
    answers = [_ask(clients[0], f"s{n}", max_tokens=8) for n in range(3)]
    assert [(a.model, a.choices[0].message.content) for a in answers] == [("bot@1", "yes")] * 3

    def failed() -> bool:
        return bool(http.get("/v1/adapters/bot/routes/1/results").json()["shadow"]["failed"] == 3)

    _eventually(failed)


def test_a_shadow_makes_way_for_whoever_asks(
    http: httpx.Client, clients: list[openai.OpenAI], watch: Watch, workshop: Workshop
) -> None:
    """The shadow's long answer is given up for a short one, and given again after it."""
    _start(http, kind="shadow", version=2)
    watch.say = "a rather long answer of some two hundred characters " * 4
    long = _ask(clients[0], max_tokens=230)
    watch.step_seconds = 0.02
    _eventually(lambda: watch.joined == 2)
    before = watch.steps
    clients[0].chat.completions.create(model="base", messages=ASKED, max_tokens=1)
    assert watch.steps - before < 30
    assert max(watch.rows) == 1, "nothing is decoded beside a shadow's answer"
    watch.step_seconds = 0.0
    with transaction(workshop.services.sessions) as session:
        assert session.get(ShadowAnswer, long.id) is None

    def compared() -> bool:
        with transaction(workshop.services.sessions) as session:
            return session.get(ShadowAnswer, long.id) is not None

    _eventually(compared)


def test_promoting_the_winner_ends_the_route(
    http: httpx.Client, clients: list[openai.OpenAI], workshop: Workshop
) -> None:
    _start(http, kind="ab", arms=[{"version": 1, "weight": 0.5}, {"version": 2, "weight": 0.5}])
    with transaction(workshop.services.sessions) as session:
        adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
        promote(session, adapter, "champion", get_version(session, adapter, 2), actor="boss", reason="won")
    for client in clients:
        assert {_ask(client, f"s{n}", max_tokens=1).model for n in range(6)} == {"bot@2"}
    assert http.get("/v1/adapters/bot/routes/1").json()["state"] == "ended"
    assert uuid.UUID(_ask(clients[0]).id.removeprefix("chatcmpl-"))


def test_a_shadow_takes_its_time_whatever_the_caller_has(
    http: httpx.Client, clients: list[openai.OpenAI], watch: Watch, workshop: Workshop
) -> None:
    def is_compared(answer: Any) -> bool:
        with transaction(workshop.services.sessions) as session:
            return session.get(ShadowAnswer, answer.id) is not None

    _start(http, kind="shadow", version=2)
    first = _ask(clients[0])
    _eventually(lambda: is_compared(first))
    watch.hold(after=3)
    hurried = _ask(clients[0], extra_headers={"X-Memgen-Timeout": "2"})
    assert watch.is_held.wait(60), "the shadow's answer is made"
    time.sleep(2.2)
    watch.go()
    _eventually(lambda: is_compared(hurried))
