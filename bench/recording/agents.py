"""Agents that play runs at processes of the API, each turn at the next one; one process is killed meanwhile."""

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.proxied import Replica

TASK = "bench"
_ENDS = ("header", "reward", "idle")


@dataclass
class PlayedRun:
    """One run as its agent has lived it."""

    number: int
    is_recorded: bool
    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Ids of the answers that arrived."""
    told: list[str] = field(default_factory=list)
    """The run that each of them named."""
    broken_off: int = 0
    """Requests whose answer never arrived, and which were sent again."""
    is_over: bool = False

    @property
    def turns(self) -> int:
        return 3 + self.number // 9 % 3

    @property
    def end(self) -> str:
        return _ENDS[self.number // 3 % 3]

    @property
    def session_id(self) -> str | None:
        """Half of the agents know nothing but `base_url` and a key."""
        return f"session {self.number}" if self.number % 4 < 2 else None

    @property
    def reward(self) -> float:
        return self.number % 11 / 10


@dataclass
class Replicas:
    replicas: list[Replica]
    key: str
    sampling: dict[str, Any]
    seconds: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    """What each answer took, by whether it was recorded."""

    def client(self, number: int) -> httpx.Client:
        return httpx.Client(base_url=self.replicas[number % len(self.replicas)].url, timeout=60.0, headers=self.headers)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def play(self, run: PlayedRun, clients: Sequence[httpx.Client]) -> None:
        run.messages = [{"role": "user", "content": f"run {run.number}"}]
        for turn in range(run.turns):
            headers = {"X-Session-Id": run.session_id} if run.session_id else {}
            if run.is_recorded:
                headers["X-Memgen-Task"] = TASK
                if turn == run.turns - 1 and run.end == "header":
                    headers["X-Memgen-Run"] = "end"
            answer = self._ask(run, turn, clients, headers)
            run.answers.append(answer["id"])
            run.told.append(str(answer["memgen"]["recorded"]["run"]))
            run.messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
            run.messages.append({"role": "user", "content": f"turn {turn}"})
        run.messages.pop()
        run.is_over = True
        if run.is_recorded and run.end == "reward":
            target = {"session_id": run.session_id} if run.session_id else {"run_id": run.told[-1]}
            self._post(run.number, clients, "/v1/feedback", {**target, "reward": run.reward, "source": "environment"})

    def _ask(self, run: PlayedRun, turn: int, clients: Sequence[httpx.Client], headers: dict[str, str]) -> Any:
        """An answer to what was said in the run. What one process does not answer to its end, the next one is asked."""
        body = {"model": "base", "messages": run.messages, **self.sampling}
        for place in itertools.count(run.number + turn):
            began = time.perf_counter()
            try:
                reply = clients[place % len(clients)].post("/v1/chat/completions", json=body, headers=headers)
            except httpx.ConnectError:  # it was not even sent
                continue
            except httpx.HTTPError:
                run.broken_off += 1
                continue
            if reply.status_code == 503:  # it has begun again, and has no model yet
                continue
            reply.raise_for_status()
            self.seconds[run.is_recorded].append(time.perf_counter() - began)
            return reply.json()
        raise AssertionError

    def _post(self, number: int, clients: Sequence[httpx.Client], path: str, body: dict[str, Any]) -> None:
        for place in itertools.count(number):
            try:
                clients[place % len(clients)].post(path, json=body).raise_for_status()
            except httpx.TransportError:
                continue
            return


def play_all(fleet: Replicas, plays: Sequence[PlayedRun], agents: int) -> dict[str, float]:
    """All runs, by so many agents at once. At a third of them a process is killed, and started again."""
    waiting, drawing = iter(plays), threading.Lock()

    def work() -> None:
        clients = [fleet.client(number) for number in range(len(fleet.replicas))]
        while True:
            with drawing:
                play = next(waiting, None)
            if play is None:
                break
            fleet.play(play, clients)
        for client in clients:
            client.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(agents) as pool:
        working = [pool.submit(work) for _ in range(agents)]
        while sum(play.is_over for play in plays) < len(plays) // 3 and not any(each.done() for each in working):
            time.sleep(0.02)
        fleet.replicas[0].kill()
        killed = time.perf_counter()
        fleet.replicas[0].start()
        fleet.replicas[0].wait()
        restarted = time.perf_counter()
        for each in working:
            each.result()
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "killed_at": round(killed - began, 1),
        "restarted_at": round(restarted - began, 1),
    }
