"""Two replicas on one database follow an alias within a second, and an answer ends on the version it began with."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch
from tests.workers.conftest import Workshop, answers, settings, workshop

__all__ = ["settings", "watch", "workshop"]


@pytest.fixture
def replicas(settings: Settings, workshop: Workshop) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(ready(settings)) for _ in range(2)]


@contextmanager
def ready(settings: Settings) -> Iterator[str]:
    """A replica with its model loaded: two can't load theirs at once in one process."""
    with serve(settings, serve_model=True) as url:
        deadline = time.monotonic() + 60
        while httpx.get(f"{url}/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url


@pytest.fixture
def headers(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"}


def _ask(**more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "y1"}]
    return {"model": "bot", "messages": messages, "max_tokens": 8, "temperature": 0, **more}


def _version(url: str, headers: dict[str, str]) -> str:
    answer = httpx.post(f"{url}/v1/chat/completions", json=_ask(), headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"])


def test_every_replica_follows_at_once_and_answers_end_where_they_began(
    workshop: Workshop, replicas: list[str], headers: dict[str, str], watch: Watch
) -> None:
    workshop.add_task("yes")
    for steps in (40, 5):
        workshop.work(workshop.queue("yes", training={"steps": steps}))
    one, two = replicas
    aliases = f"{one}/v1/adapters/bot/aliases/champion"
    if workshop.champion() == 2:
        httpx.post(f"{aliases}/rollback", json={}, headers=headers).raise_for_status()
    assert [_version(url, headers) for url in replicas] == ["bot@1", "bot@1"]

    def move(path: str, body: dict[str, object], expected: str) -> None:
        moved = time.monotonic()
        httpx.post(f"{aliases}/{path}", json=body, headers=headers).raise_for_status()
        assert [_version(url, headers) for url in replicas] == [expected, expected]
        assert time.monotonic() - moved < 1.0 + 2 * slack

    started = time.monotonic()
    for url in replicas:
        httpx.post(f"{url}/v1/chat/completions", json=_ask(model="bot@2"), headers=headers, timeout=60)
    slack = time.monotonic() - started  # what two answers cost on this machine
    _force_pass(workshop, 2)
    watch.hold(after=2)
    chat = f"{two}/v1/chat/completions"
    with httpx.stream("POST", chat, json=_ask(stream=True), headers=headers, timeout=60) as reply:
        assert reply.headers["x-memgen-version"] == "bot@1"
        moved = httpx.post(f"{aliases}/promote", json={"version": 2, "expected_version": 1}, headers=headers)
        assert moved.status_code == 200, moved.text
        watch.go()
        chunks = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    assert {chunk["model"] for chunk in chunks} == {"bot@1"}
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "yes"
    assert [_version(url, headers) for url in replicas] == ["bot@2", "bot@2"]
    stale = httpx.post(f"{aliases}/rollback", json={"expected_version": 1}, headers=headers)
    assert (stale.status_code, stale.json()["title"]) == (409, "stale alias")
    move("rollback", {"reason": "worse"}, "bot@1")
    move("promote", {"version": 2}, "bot@2")


def _force_pass(workshop: Workshop, number: int) -> None:
    """Let the gate of a version have passed, whatever it said: what is tested is how serving follows."""
    import sqlalchemy as sa

    from registry.database import transaction

    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("alter table gates disable trigger immutable"))
        session.execute(
            sa.text("update gates set passed = true where version_id = (select id from versions where number = :n)"),
            {"n": number},
        )
        session.execute(sa.text("alter table gates enable trigger immutable"))


def test_an_isolated_version_answers_with_the_memory_of_the_prompts_task(
    workshop: Workshop, replicas: list[str], headers: dict[str, str]
) -> None:
    import sqlalchemy as sa

    from registry.database import transaction

    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set strategy = 'isolated', replay_share = 0, gate_margin = 1"))
    for name in ("yes", "nope"):
        workshop.add_task(name, answers(name, 60))
    workshop.work(workshop.queue("yes"))
    done = workshop.work(workshop.queue("nope", parent=1))
    assert workshop.champion() == 2, done.result

    def answer(text: str) -> tuple[str | None, str]:
        body = _ask(messages=[{"role": "user", "content": text}])
        reply = httpx.post(f"{replicas[0]}/v1/chat/completions", json=body, headers=headers, timeout=60).json()
        assert reply["model"] == "bot@2"
        return reply["memgen"]["task"], reply["choices"][0]["message"]["content"]

    told = [answer(f"y{n}") for n in range(20)]
    assert told.count(("yes", "yes")) > 10
    told += [answer(f"n{n}") for n in range(20)]
    assert told[20:].count(("nope", "nope")) > 10
    task, text = answer("Something else altogether, and much longer than any of them: what is it?")
    assert task is None
    base = httpx.post(
        f"{replicas[0]}/v1/chat/completions",
        json=_ask(
            model="base",
            messages=[
                {"role": "user", "content": "Something else altogether, and much longer than any of them: what is it?"}
            ],
        ),
        headers=headers,
        timeout=60,
    ).json()
    assert text[:2] == base["choices"][0]["message"]["content"][:2]
