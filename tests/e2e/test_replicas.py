"""Two processes of the API, each with its own engine, behind a proxy: they share database, object store and broker, and
nothing else."""

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.settings import Settings
from registry.versions.records import get_version, register_version
from tests.api.stored import make_gate
from tests.e2e.proxied import ABRUPT, Replica, run_proxy, run_replicas
from tests.workers.conftest import Workshop, settings, workshop

__all__ = ["settings", "workshop"]


@dataclass
class Fleet:
    replicas: list[Replica]
    proxy: str
    headers: dict[str, str]

    @property
    def urls(self) -> list[str]:
        return [*(replica.url for replica in self.replicas), self.proxy]

    def chat(self, url: str, session: str | None = None, **more: Any) -> httpx.Response:
        body = {"model": "bot", "messages": [{"role": "user", "content": "y1"}], "max_tokens": 4, "temperature": 0}
        headers = self.headers | ({"X-Session-Id": session} if session else {})
        return httpx.post(f"{url}/v1/chat/completions", json=body | more, headers=headers, timeout=120)

    def version(self, url: str, session: str | None = None) -> str:
        answer = self.chat(url, session)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["model"])


@pytest.fixture
def fleet(settings: Settings, workshop: Workshop, api_key: str, tmp_path: Path) -> Iterator[Fleet]:
    """Version 1 is the champion; 2 is the same memory under another number."""
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    with transaction(workshop.services.sessions) as session:
        adapter = get_adapter(session, workshop.project_id, "bot", lock=True)
        first = get_version(session, adapter, 1)
        job = jobs.create_job(session, workshop.project_id, TrainWeaver("t"), adapter)
        job.dataset_id = first.dataset_id
        same = {"artifact_key": first.artifact_key, "artifact_hash": first.artifact_hash}
        report: dict[str, Any] = {"flags": []}
        register_version(session, job, adapter, parent_id=first.id, code_version="test", report=report, **same)
        make_gate(session, get_version(session, adapter, 2), first.dataset.task, before=0.25, after=0.5)
    # The notice is ten of the proxy's looks.
    serving = settings.model_copy(
        update={
            "base_dtype": "float32",
            "torch_threads": 1,
            "drain_notice_seconds": 2.0,
            "drain_seconds": 60.0,
            "log_level": "info",
        }
    )
    with run_replicas(serving, tmp_path) as replicas, run_proxy(replicas, tmp_path) as proxy:
        yield Fleet(replicas, proxy, {"Authorization": f"Bearer {api_key}"})


@pytest.mark.slow
def test_replicas(fleet: Fleet) -> None:
    """One fleet for all, which takes half a minute to start."""
    what_one_replica_does_the_other_knows_at_once(fleet)
    a_kill_loses_only_what_was_begun(fleet)
    a_rolling_restart_loses_nothing_that_abrupt_ends_would_lose(fleet)


def what_one_replica_does_the_other_knows_at_once(fleet: Fleet) -> None:
    one, two = (replica.url for replica in fleet.replicas)
    aliases = "/v1/adapters/bot/aliases/champion"

    assert {fleet.version(url) for url in fleet.urls} == {"bot@1"}
    httpx.post(f"{one}{aliases}/promote", json={"version": 2}, headers=fleet.headers).raise_for_status()
    assert {fleet.version(url) for url in (two, one, fleet.proxy)} == {"bot@2"}
    stale = {"version": 1, "expected_version": 1}
    assert httpx.post(f"{two}{aliases}/promote", json=stale, headers=fleet.headers).status_code == 409
    httpx.post(f"{two}{aliases}/rollback", json={}, headers=fleet.headers).raise_for_status()
    assert {fleet.version(url) for url in (one, two, fleet.proxy)} == {"bot@1"}

    listed = [httpx.get(f"{url}/v1/models", headers=fleet.headers).json() for url in (one, two)]
    assert listed[0] == listed[1]

    made = httpx.post(f"{one}/v1/keys", json={"name": "agent", "scopes": ["read"]}, headers=fleet.headers).json()
    agent = Fleet(fleet.replicas, fleet.proxy, {"Authorization": f"Bearer {made['key']}"})
    assert agent.version(two) == "bot@1"
    httpx.delete(f"{one}/v1/keys/{made['id']}", headers=fleet.headers).raise_for_status()
    assert [agent.chat(url).status_code for url in (two, one)] == [401, 401]

    headers = fleet.headers | {"Idempotency-Key": uuid.uuid4().hex}
    body = {"kind": "train_weaver", "adapter": "bot", "task": "yes"}
    before = len(httpx.get(f"{one}/v1/jobs", headers=fleet.headers).json()["data"])
    with ThreadPoolExecutor(8) as pool:
        sent = pool.map(lambda url: httpx.post(f"{url}/v1/jobs", json=body, headers=headers), [one, two] * 4)
        assert len({reply.json()["id"] for reply in sent}) == 1
    assert len(httpx.get(f"{two}/v1/jobs", headers=fleet.headers).json()["data"]) == before + 1

    # A session has one version, whichever replica answers.
    route = {"kind": "ab", "arms": [{"version": 1, "weight": 0.5}, {"version": 2, "weight": 0.5}]}
    httpx.post(f"{fleet.proxy}/v1/adapters/bot/routes", json=route, headers=fleet.headers).raise_for_status()
    sessions = [f"session {number}" for number in range(16)]
    by_url = [[fleet.version(url, session) for session in sessions] for url in fleet.urls]
    assert by_url[0] == by_url[1] == by_url[2]
    assert set(by_url[0]) == {"bot@1", "bot@2"}


@dataclass
class Sent:
    began: float
    session: str
    stream: bool
    tokens: int
    ended: float = 0.0
    first_byte: float | None = None
    status: int | None = None
    version: str = ""
    text: str = ""
    error: str = ""

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and not self.error


@dataclass
class Load:
    """Agents that ask without a pause, each in a session of its own: half of them by streams, a third at length."""

    fleet: Fleet
    all_at_length: bool = False
    sent: list[Sent] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        tokens = 24 if number % 3 and not self.all_at_length else 300
        session, stream = f"session {number}", number % 2 == 0
        with httpx.Client(base_url=self.fleet.proxy, headers=self.fleet.headers, timeout=120) as client:
            while not self._over.is_set():
                one = Sent(time.monotonic(), session, stream, tokens)
                try:
                    self._ask(client, one)
                except httpx.HTTPError as error:
                    one.error = f"{type(error).__name__}: {error}"
                one.ended = time.monotonic()
                self.sent.append(one)

    def _ask(self, client: httpx.Client, one: Sent) -> None:
        # The bare base talks on; so there is something to break off.
        body = {"model": "base", "messages": [{"role": "user", "content": one.session}], "max_tokens": one.tokens}
        body |= {"temperature": 0, "stream": one.stream}
        headers = {"X-Session-Id": one.session}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply:
            one.status, one.version = reply.status_code, reply.headers.get("x-memgen-version", "")
            for line in reply.iter_lines():
                one.first_byte = one.first_byte or time.monotonic()
                one.text += f"{line}\n"
        if one.status != 200:
            one.error = one.text
        elif one.stream:
            events = [line[6:] for line in one.text.splitlines() if line.startswith("data: ")]
            if not events or events[-1] != "[DONE]":
                one.error = f"the stream ended with {events[-1:]}"
            else:
                deltas = [choice["delta"] for each in events[:-1] for choice in json.loads(each)["choices"]]
                one.text = "".join(delta.get("content") or "" for delta in deltas)
        else:
            one.text = json.loads(one.text)["choices"][0]["message"]["content"]

    def wait_for(self, more: int) -> None:
        """Until so many more were answered."""
        enough, deadline = len(self.sent) + more, time.monotonic() + 120
        while len(self.sent) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextmanager
def under_load(fleet: Fleet, agents: int = 6, *, all_at_length: bool = False) -> Iterator[Load]:
    load = Load(fleet, all_at_length)
    threads = [threading.Thread(target=load.run, args=(number,)) for number in range(agents)]
    for thread in threads:
        thread.start()
    try:
        load.wait_for(2 * agents)
        yield load
    finally:
        load._over.set()
        for thread in threads:
            thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)


def check_answers(sent: list[Sent]) -> None:
    """Each agent was always answered alike: greedy answers of one base in float32."""
    answers = Counter((one.session, one.text) for one in sent if one.is_whole)
    assert len(answers) == len({session for session, _ in answers}), answers


def a_kill_loses_only_what_was_begun(fleet: Fleet) -> None:
    [one, _] = fleet.replicas
    with under_load(fleet) as load:
        before = time.monotonic()
        one.kill()
        dead = time.monotonic()
        load.wait_for(24)
        one.start()
        one.wait()
        load.wait_for(12)
    failed = lost_by(load)
    in_flight = [each for each in load.sent if each.began < dead and each.ended > before]
    assert all(each in in_flight for each in failed), failed
    assert len(failed) < len(in_flight), "the other replica's answers went on"
    assert [each for each in load.sent if each.began > dead]
    check_answers(load.sent)


def a_rolling_restart_loses_nothing_that_abrupt_ends_would_lose(fleet: Fleet) -> None:
    with under_load(fleet, all_at_length=True) as load:
        for replica in fleet.replicas:
            assert restart(replica) == 0
            load.wait_for(12)
    assert lost_by(load) == []
    check_answers(load.sent)

    # The control: by the same load, where nothing drains.
    for replica in fleet.replicas:
        replica.program = ABRUPT
        restart(replica)
    with under_load(fleet, all_at_length=True) as load:
        for replica in fleet.replicas * 2:
            restart(replica)
            if lost_by(load):
                break
    assert lost_by(load), "else a restart that loses nothing shows nothing"
    check_answers(load.sent)


def restart(replica: Replica) -> int:
    """The exit status of the one before."""
    status = replica.leave()
    replica.start()
    replica.wait()
    return status


def lost_by(load: Load) -> list[Sent]:
    return [each for each in load.sent if not each.is_whole]
