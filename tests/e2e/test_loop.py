"""A whole loop on a tiny base: an agent asks over HTTP and reports its rewards, and what follows comes by itself.

The API, the database, the broker and the store are real, the beat's tick and the worker's job run in this process: days
pass as fast as it can work.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from memgen_client import JsonClient
from registry.clock import utc_now
from registry.database import transaction
from registry.models import Run, Schedule
from registry.settings import Settings
from tests.api.cli.invoking import succeed
from tests.api.live_api import serve
from tests.workers.conftest import TRAINING, Workshop, settings, workshop
from workers.beat import tick_all

__all__ = ["settings", "workshop"]

RIGHT = '"yes"'
PATIENCE_SECONDS = 600.0
"""For one step: a machine may be busy with other things."""


def _saying(word: str) -> dict[str, Any]:
    """Makes the untrained base, which knows no word, say one."""
    return {"type": "json_schema", "json_schema": {"name": "word", "schema": {"const": word}}}


@pytest.fixture
def url(settings: Settings, workshop: Workshop) -> Iterator[str]:
    with serve(settings, serve_model=True) as served:
        _eventually(lambda: httpx.get(f"{served}/readyz").is_success)
        yield served


@pytest.fixture
def client(url: str, api_key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[JsonClient]:
    monkeypatch.setenv("MEMGEN_API_URL", url)
    monkeypatch.setenv("MEMGEN_API_KEY", api_key)
    with JsonClient(url, api_key, timeout=PATIENCE_SECONDS) as made:
        yield made


def _eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


class Days:
    def __init__(self, client: JsonClient, workshop: Workshop, url: str, api_key: str) -> None:
        self._client, self._workshop = client, workshop
        self._numbers = count()
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=PATIENCE_SECONDS
        )

    def ask(self, name: str, **options: Any) -> tuple[str, str]:
        """One run of the agent, with its reward: the version that answered, and what it said."""
        messages = [{"role": "user", "content": f"y{next(self._numbers)}"}]
        body = {"model": "bot", "messages": messages, "max_tokens": 8, "temperature": 0, **options}
        reply = self._http.post(
            "/v1/chat/completions", json=body, headers={"X-Session-Id": name, "X-Memgen-Run": "end"}
        )
        assert reply.status_code == 200, reply.text
        answer = reply.json()
        assert answer["memgen"]["recorded"]["run"], answer["memgen"]
        said = str(answer["choices"][0]["message"]["content"])
        reward = float(said == RIGHT)
        self._http.post("/v1/feedback", json={"session_id": name, "reward": reward}).raise_for_status()
        return answer["model"], said

    def runs(self, name: str, number: int, **options: Any) -> list[tuple[str, str]]:
        """One after the other, so that trainings always get the same examples in the same order."""
        return [self.ask(f"{name}{each}", **options) for each in range(number)]

    def day(self, name: str, number: int, **options: Any) -> list[tuple[str, str]]:
        """So many runs, until they are closed."""
        known = self._closed()
        found = self.runs(name, number, **options)
        _eventually(lambda: self._closed() == known + number)
        return found

    def night(self) -> uuid.UUID | None:
        """It is three o'clock: the beat asks the schedule. The job that it started."""
        with transaction(self._workshop.services.sessions) as session:
            session.execute(sa.update(Schedule).values(next_run_at=utc_now()))
        created = tick_all(self._workshop.services, lambda _: None)
        return created[0] if created else None

    def show(self) -> Any:
        return self._client.loops.get("bot")

    def close(self) -> None:
        self._http.close()

    def _closed(self) -> int:
        with transaction(self._workshop.services.sessions) as session:
            return session.scalar(sa.select(sa.func.count()).where(Run.state == "closed")) or 0


@pytest.fixture
def days(client: JsonClient, workshop: Workshop, url: str, api_key: str) -> Iterator[Days]:
    made = Days(client, workshop, url, api_key)
    yield made
    made.close()


def _counts(loop: Any) -> dict[str, int]:
    return {stage["stage"]: stage["total"] for stage in loop["stages"] if stage["total"]}


@pytest.mark.slow
def test_an_agent_that_only_asks_gets_better_by_itself(days: Days, client: JsonClient, workshop: Workshop) -> None:
    setup = succeed(
        *("loop", "create", "bot", "--task", "support", "--create", "--grader", "exact", "--every", "night"),
        *("--after", "10", "--canary-share", "0.5", "--margin", "0.3", "--gate-margin", "0.1"),
        *(part for key, value in TRAINING.items() for part in ("--set", f"{key}={value}")),
    ).out
    assert "a drop of 10 points at most; 50% of the sessions try a version that passed" in setup
    shown = succeed("loop", "show", "bot").out
    assert "Champion: the bare base." in shown
    assert "Records: all requests as support, but those with `store: false`." in shown
    assert "Why not now: nothing new to learn" in shown

    days.runs("mumbled", 2)
    _eventually(lambda: _counts(days.show()) == {"refused": 2})
    assert "Not recorded: runs that teach nothing, the last for this: " in succeed("loop", "show", "bot").out
    days.day("wrong", 6, response_format=_saying("no"))
    assert days.night() is None
    assert "; not counted: " in days.show()["waiting"]["last_skip"]
    days.day("right", 40, response_format=_saying("yes"))
    loop = days.show()
    recorded = {"arrived": 46, "recorded": 46, "refused": 2, "rewarded": 46}
    assert _counts(loop) == recorded
    assert loop["waiting"]["new"] >= 20
    assert loop["waiting"]["not_counted"]["low_reward"] == 6
    assert loop["waiting"]["why_not"] is None

    first = days.night()
    assert first is not None
    assert days.show()["waiting"]["why_not"] == f"its last job {first} is still queued"
    workshop.work(first)
    loop = days.show()
    assert loop["champion"] == 1, loop["attempts"]
    assert _counts(loop) == {
        "arrived": 46,
        "recorded": 46,
        "refused": 2,
        "rewarded": 46,
        "trained": 1,
        "passed": 1,
        "promoted": 1,
    }
    shown = succeed("loop", "show", "bot").out
    assert "Champion: bot@1 since" in shown
    assert "bot@1 promoted: passed its gate." in shown

    found = days.day("second", 40)
    assert {version for version, _ in found} == {"bot@1"}
    assert sum(said == RIGHT for _, said in found) > 20
    second = days.night()
    assert second is not None
    workshop.work(second)
    loop = days.show()
    assert (loop["champion"], loop["canary"]["version"]) == (1, 2), loop["attempts"]
    shown = succeed("loop", "show", "bot").out
    assert "bot@2 is being tried: route 1 gives it a share of the sessions." in shown
    assert "Why not now: the canary of bot@2 is not decided" in " ".join(shown.split())
    assert days.night() is None

    for number in range(20):
        if days.show()["canary"] is None:
            break
        days.runs(f"third{number}.", 10)
    loop = days.show()
    assert loop["champion"] == 2, loop["attempts"]
    assert loop["attempts"][0]["outcome"] == "promoted"
    counts = _counts(loop)
    assert (counts["trained"], counts["tried"], counts["promoted"]) == (2, 1, 2)
    assert client.loops.history("bot")["data"][-1]["kind"] == "created"
    assert loop["state"] == "running"
