"""What is sent again and what is not: the rule by itself, and against a real service whose answers are lost."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memgen_client import ApiUnreachable, Client
from memgen_client.errors import ApiError, Busy, Conflict, Unavailable
from memgen_client.retries import Retries
from tests.packages.client.lossy_proxy import LossyProxy, lossy
from tests.relay import Relay
from tests.trajectory_samples import chat

LOST = ApiUnreachable("http://x", "the reply broke off")
REFUSED = ApiUnreachable("http://x", "nothing listens", was_sent=False)
AWAY = Unavailable(503, "database_unavailable", "away")
QUEUE_FULL = Busy(429, "queue_full", "full", retry_after=3.0)


@pytest.fixture
def proxy(url: str) -> Iterator[LossyProxy]:
    with lossy(url) as opened:
        yield opened


def test_what_may_have_been_done_is_repeated_only_where_that_is_harmless() -> None:
    retries = Retries(most=2)
    for error in (LOST, AWAY):
        assert retries.pause(1, error, may_be_repeated=False) is None
        assert retries.pause(1, error, may_be_repeated=True) is not None
    for error in (REFUSED, QUEUE_FULL):
        assert retries.pause(1, error, may_be_repeated=False) is not None
    for error in (ApiError(422, "invalid", "no"), Conflict(409, "stale_alias", "moved"), ApiError(500, "bug", "x")):
        assert retries.pause(1, error, may_be_repeated=True) is None


def test_pauses_grow_and_end_and_the_service_s_own_word_goes_before() -> None:
    retries = Retries(most=3, first_seconds=1.0, longest_seconds=3.0)
    for failed, longest in ((1, 1.0), (2, 2.0), (3, 3.0)):
        pause = retries.pause(failed, LOST, may_be_repeated=True)
        assert pause is not None
        assert longest / 2 <= pause <= longest
    assert retries.pause(4, LOST, may_be_repeated=True) is None
    assert retries.pause(1, QUEUE_FULL, may_be_repeated=False) == 3.0
    assert Retries(most=3, longest_seconds=2.0).pause(1, QUEUE_FULL, may_be_repeated=True) is None
    assert Retries(most=0).pause(1, REFUSED, may_be_repeated=True) is None


def test_a_creation_whose_answer_was_lost_is_sent_again_and_creates_once(proxy: LossyProxy, api_key: str) -> None:
    with Client(proxy.url, api_key) as client:
        client.tasks.create("t")
        proxy.lose = 1
        assert client.adapters.create("bot").name == "bot"
        assert [adapter.name for adapter in client.adapters.list()] == ["bot"]
        proxy.lose = 1
        job = client.jobs.train("bot", "t")
        assert [each.id for each in client.jobs.all()] == [job.id]
        assert proxy.passed.count("POST /v1/jobs") == 2


def test_what_has_no_key_is_not_sent_again(proxy: LossyProxy, api_key: str) -> None:
    with Client(proxy.url, api_key) as client:
        proxy.lose = 1
        with pytest.raises(ApiUnreachable) as error:
            client.keys.create("agent", ["read"])
        assert error.value.was_sent
        assert proxy.passed.count("POST /v1/keys") == 1
        assert [key.name for key in client.keys.list()] == ["bootstrap", "agent"]


def test_a_file_is_sent_again_from_its_beginning_and_an_iterable_is_not(
    proxy: LossyProxy, api_key: str, tmp_path: Path
) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("\n".join(json.dumps(chat(f"q {n}")) for n in range(3)))
    with Client(proxy.url, api_key) as client:
        client.tasks.create("t")
        proxy.lose = 1
        sent: list[int] = []
        report = client.trajectories.upload(file, task="t", on_progress=lambda done, total: sent.append(done))
        assert (report.accepted, report.duplicate) == (0, 3)
        assert sent == [file.stat().st_size] * 2
        proxy.lose = 1
        with pytest.raises(ApiUnreachable):
            client.trajectories.upload((chat(f"p {n}") for n in range(2)), task="t")
        assert client.tasks.get("t").trajectories == 5


def test_a_file_whose_connection_breaks_in_the_middle_is_stored_whole_and_once(
    url: str, api_key: str, tmp_path: Path
) -> None:
    file, many = tmp_path / "runs.jsonl", 1500
    file.write_text("\n".join(json.dumps(chat(f"question {n} {'x' * 200}")) for n in range(many)))
    relay, broken = Relay("127.0.0.1", int(url.rpartition(":")[2])), []

    def break_once(sent: int, total: int | None) -> None:
        if not broken:
            broken.append((sent, total))
            relay.drop()

    try:
        with Client(f"http://127.0.0.1:{relay.port}", api_key) as client:
            client.tasks.create("t")
            report = client.trajectories.upload(file, task="t", on_progress=break_once)
            assert broken == [(65_536, file.stat().st_size)]
            assert (report.complete, report.accepted + report.duplicate) == (True, many)
            assert client.tasks.get("t").trajectories == many
    finally:
        relay.close()


def test_what_was_refused_for_now_is_sent_again_whole_or_not_at_all(
    proxy: LossyProxy, api_key: str, tmp_path: Path
) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("\n".join(json.dumps(chat(f"q {n}")) for n in range(3)))
    with Client(proxy.url, api_key) as client:
        proxy.refuse = 2
        client.tasks.create("t")
        proxy.refuse = 1
        assert client.keys.create("agent", ["read"]).name == "agent"  # nothing was done, so it can't be done twice
        proxy.refuse = 1
        assert client.trajectories.upload(file, task="t").accepted == 3
        proxy.refuse = 1
        with pytest.raises(Busy):  # half of what the iterable gave is gone: the rest alone must not be taken for it
            client.trajectories.upload((chat(f"p {n}") for n in range(2)), task="t")
        assert client.tasks.get("t").trajectories == 3
        proxy.refuse = 3
        with pytest.raises(Busy):
            client.tasks.list()


def test_reading_goes_on_where_a_connection_broke_or_the_service_was_away(url: str, api_key: str) -> None:
    relay = Relay("127.0.0.1", int(url.rpartition(":")[2]))
    away = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{}"
    try:
        with Client(f"http://127.0.0.1:{relay.port}", api_key, retries=8) as client:
            assert client.tasks.list() == []
            relay.drop()  # the kept connection is dead; the next request meets that
            assert client.tasks.list() == []
            relay.greet(away)
            with pytest.raises(Unavailable):
                client.tasks.list()
            relay.away()
            returning = threading.Timer(0.5, relay.back)
            returning.start()
            assert client.tasks.list() == []
            returning.join()
        relay.away()
        with (
            Client(f"http://127.0.0.1:{relay.port}", api_key, retries=0) as client,
            pytest.raises(ApiUnreachable) as no,
        ):
            client.tasks.list()
        assert not no.value.was_sent
    finally:
        relay.close()
