"""The service that the proof runs on: the local stack in a folder of its own, its loop, and what an owner may read.

All of it goes over HTTP with the service's client, and none of it is an upload: the service is told once what to do by
itself.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.cli.stack import SUPERVISOR
from api.http.json_object import JsonObject
from api.local.control import down, up
from memgen_client import LIVE_STATES, JsonClient, NotFound
from registry.settings import load_settings
from registry.wiring import configured

ADAPTER = "player"
TASK = "games"
_IDLE_HOURS = 0.004
"""Quarter of a minute without a request: the night has come."""
_POLL_SECONDS = 1.0


class NothingHappened(Exception):
    """The loop did not get on with what it had. The message says what it waits for, by its own account."""


def stop(home: Path) -> None:
    """Stop a stack that runs in `home`, if one does."""
    down(load_settings(service_env=False, home=home))


@contextmanager
def running(home: Path) -> Iterator["Service"]:
    """The stack in `home`, started now and stopped at the end."""
    settings = load_settings(service_env=False, home=home, api_port=0, tick_interval_seconds=2.0)
    up(settings, command=SUPERVISOR)
    try:
        connected = load_settings(home=home)
        with JsonClient(connected.api_url, configured(connected.api_key, "MEMGEN_API_KEY"), timeout=120.0) as client:
            yield Service(client, connected.api_url)
    finally:
        down(settings)


@dataclass(frozen=True)
class Service:
    client: JsonClient
    """The owner's."""
    url: str

    def agent_key(self) -> str:
        """A key that may ask for answers and give feedback, and nothing else."""
        return str(self.client.keys.create("agent", ["read", "write"])["key"])

    def set_up_loop(self, *, steps: int) -> None:
        """The one thing that the owner does: `memgen loop create player --task games --create --idle-hours 0.004 ...`.

        Few runs make short canaries, so their margin is wide; the gate's is the service's own.
        """
        self.client.loops.create(
            ADAPTER,
            TASK,
            create=True,
            grader={"kind": "exact"},
            holdout_share=0.3,
            memory={"max_insertions": 0},
            idle_hours=_IDLE_HOURS,
            training={"steps": steps},
            min_reward=0.5,
            canary_share=0.5,
            canary_margin=0.3,
        )

    def versions(self) -> int:
        return max((version["number"] for version in self.client.versions.all(ADAPTER)), default=0)

    def night(self, *, seconds: float) -> JsonObject:
        """Wait until the loop, since nobody asks any more, has trained a version and its gate has judged it.

        Raises:
            NothingHappened: there is no judged version after so many seconds.
        """
        number, deadline = self.versions() + 1, time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            if self.versions() >= number and not self._works():
                version: JsonObject = self.client.versions.get(ADAPTER, number)
                if version["gate"]:
                    return version
        loop = self.client.loops.get(ADAPTER)
        raise NothingHappened(
            f"no judged {ADAPTER}@{number} after {seconds:.0f} s; the loop is {loop['state']}: {loop['reason']} "
            f"{loop['advice']} {loop['waiting']['why_not']}"
        )

    def _works(self) -> bool:
        return any(job["state"] in LIVE_STATES for job in self.client.jobs.list(limit=20)["data"])

    def champion(self) -> str | None:
        """`player@3`, or None while the bare base answers."""
        try:
            return f"{ADAPTER}@{self.client.aliases.get(ADAPTER)['version']}"
        except NotFound:
            return None

    def live_route(self) -> JsonObject | None:
        routes: list[JsonObject] = self.client.routes.list(ADAPTER)["data"]
        return next((route for route in routes if route["state"] == "live"), None)

    def end_canary(self) -> None:
        route = self.live_route()
        if route is not None:
            self.client.routes.end(ADAPTER, route["number"], reason="not decided in its day")

    def verdict_of(self, name: str) -> str:
        """What became of a version: `rejected` by its gate, `canary`, `stopped` or `promoted`."""
        number = int(name.rpartition("@")[2])
        if not self.client.versions.get(ADAPTER, number)["gate"]["passed"]:
            return "rejected"
        for route in self.client.routes.list(ADAPTER)["data"]:
            if route["kind"] == "canary" and route["arms"][1]["version"] == number:
                return "canary" if route["state"] == "live" else str(route["state"])
        return "promoted"

    def uploaded_by_hand(self) -> int:
        """Trajectories of the task that are no recorded run."""
        rows = self.client.trajectories.all(task=TASK)
        return sum("recorded" not in (row.get("metadata") or {}) for row in rows)
