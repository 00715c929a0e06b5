"""`python -m bench.dashboard`: the server's time for each page of the dashboard over a large project.

A database gets 10,000 versions and 1,000,000 trajectories by plain SQL, and the API serves it, over loopback, in this
process. Each page is opened once and then measured, by a person of the large project and by one of a small project
beside it: its time, the statements that it sends, and how long the database took for them. Writes
`bench/results/dashboard.json`. Minutes on two cores; `--versions` and `--trajectories` take fewer.

Where other work keeps the machine busy, `best_ms` says most; `median_ms` is what is held against the bar.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from pydantic import SecretStr

from bench.dashboard.filling import ADAPTER, RARE, REPLAYED, FilledProject, fill
from bench.report import RESULTS, commit
from registry.database import upgrade
from registry.settings import Settings, load_settings
from registry.wiring import open_services
from tests.api.live_api import serve
from tests.services import BUCKET, Servers, run_servers

BAR_MS = 300
_SEARCHES = {
    "all": "",
    "a common task": "task=a",
    "a rare task": f"task={RARE}",
    "a session": "session=session-17",
    "held out": "held_out=yes",
    "unrewarded": "rewarded=no",
    "high rewards": "low=0.98",
    "a reward that nobody has": "low=7",
    "words that all have": "text=order+way",
    "a word that one has": "text=number77",
    "a word that nobody has": "text=nowhere",
    "two words in a row": "text=%22w1+w2%22",
    "words that many have, in a rare task": f"text=w1+w2&task={RARE}",
    "words but not one": "text=w5+-order",
    "either of two words": "text=number77+or+number78",
    "a version that answered": f"version={ADAPTER}%403",
}


def pages_of(project: FilledProject, versions: int) -> dict[str, str]:
    """Paths by what they show."""
    bot = f"/adapters/{ADAPTER}"
    found = {f"trajectories: {name}": f"/trajectories?{query}" for name, query in _SEARCHES.items()}
    trajectories = {"a trajectory": 60, "a trajectory that all versions learned": REPLAYED}
    for name, number in trajectories.items():
        path = f"/trajectories/{uuid.UUID(_md5(f'{project.id} trajectory {number}'))}"
        found |= {name: path, f"deletion of {name}": f"{path}/deletion"}
    lists = ("adapters", "loops", "jobs", "playground", "schedules", "tasks", "recordings", "deletions", "keys")
    for name in (*lists, "feedback", "judges"):
        found[name] = f"/{name}"
    found |= {f"runs: {state}": f"/recordings?state={state}" for state in ("open", "closing", "refused")}
    found["runs: a task"] = "/recordings?task=a"
    found |= {"overview": "", "adapter": bot, "routes": f"{bot}/routes"}
    if versions:
        newest = f"{bot}/versions/{versions}"
        found |= {"older versions": f"{bot}?before={versions // 2}", "version": newest, "its items": f"{newest}/items"}
        found |= {"first version": f"{bot}/versions/1", "its analysis": f"{newest}/analysis"}
        found |= {"a route": f"{bot}/routes/200", "a loop": f"/loops/{ADAPTER}", "a schedule": "/schedules/nightly"}
        found |= {"its settings": f"{bot}/settings", "a run": f"/runs/{uuid.UUID(_md5('run 1'))}", "a task": "/tasks/a"}
        found["a judge"] = "/judges/helpful"
        found["a deletion"] = f"/deletions/{uuid.UUID(_md5('deletion 1'))}"
        found["a job"] = f"/jobs/{uuid.UUID(_md5(f'job {versions}'))}"
    return found


_LISTS = ("trajectories: all", "trajectories: words that all have", "jobs", "deletions", "routes")
"""Those whose next page is measured too."""
_NEXT = re.compile(r"[?&;]cursor=([^&\"]+)")


@dataclass
class Asked:
    """What was asked of the database."""

    statements: int = 0
    seconds: float = 0.0


@contextmanager
def ask_count(engine: sa.Engine | type[sa.Engine]) -> Iterator[Asked]:
    """Statements from within the block, and their time. Threads that work beside the pages are left out."""
    asked = Asked()

    def before(connection: sa.Connection, *_: object) -> None:
        connection.info["began"] = time.perf_counter()

    def after(connection: sa.Connection, *_: object) -> None:
        if threading.current_thread().name.startswith("AnyIO"):
            asked.statements += 1
            asked.seconds += time.perf_counter() - connection.info["began"]

    listeners = {"before_cursor_execute": before, "after_cursor_execute": after}
    for name, listener in listeners.items():
        sa.event.listen(engine, name, listener)
    try:
        yield asked
    finally:
        for name, listener in listeners.items():
            sa.event.remove(engine, name, listener)


def measure(url: str, project: FilledProject, pages: Mapping[str, str], repeats: int) -> dict[str, Any]:
    """Milliseconds of each page, as a person who is signed in waits for it."""
    with httpx.Client(base_url=url, timeout=120, follow_redirects=True) as browser, ask_count(sa.Engine) as asked:
        browser.post("/ui/sign-in", data={"key": project.key}).raise_for_status()
        found = {}
        for name, path in sorted(pages.items()):
            first = browser.get(f"/ui{path}").raise_for_status()
            found[name] = _measured(browser, path, repeats, asked)
            following = _NEXT.search(first.text) if name in _LISTS else None
            if following is not None:
                cursor = f"{'&' if '?' in path else '?'}cursor={following[1]}"
                found[f"{name}, next page"] = _measured(browser, path + cursor, repeats, asked)
        return found


def _measured(browser: httpx.Client, path: str, repeats: int, asked: Asked) -> dict[str, Any]:
    times, in_database = [], []
    asked.statements = 0
    for _ in range(repeats):
        asked.seconds, began = 0.0, time.perf_counter()
        page = browser.get(f"/ui{path}")
        times.append(1000 * (time.perf_counter() - began))
        in_database.append(1000 * asked.seconds)
        page.raise_for_status()
    return {
        "median_ms": round(statistics.median(times), 1),
        "best_ms": round(min(times), 1),
        "worst_ms": round(max(times), 1),
        "database_ms": round(statistics.median(in_database), 1),
        "statements": round(asked.statements / repeats),
        "kilobytes": round(len(page.content) / 1000, 1),
    }


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _settings(servers: Servers, home: Path) -> Settings:
    return load_settings(
        service_env=False,
        home=home,
        database_url=SecretStr(servers.database_url),
        broker_url=SecretStr(servers.broker_url),
        s3_url=SecretStr(servers.s3_url),
        s3_bucket=BUCKET,
        log_level="warning",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000, help="200 at least")
    parser.add_argument("--trajectories", type=int, default=1_000_000, help="10,000 at least")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "dashboard.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, run_servers() as servers:
        settings = _settings(servers, Path(folder))
        upgrade(servers.database_url)
        began = time.monotonic()
        with open_services(settings) as services:
            services.store.ensure_bucket()
            large, small = fill(
                services.engine, services.sessions, versions=options.versions, trajectories=options.trajectories
            )
        filled = time.monotonic() - began
        print(f"filled in {filled:.0f} s", file=sys.stderr, flush=True)  # noqa: T201 - progress
        with serve(settings) as url:
            pages = {
                "large": measure(url, large, pages_of(large, options.versions), options.repeats),
                "small": measure(url, small, pages_of(small, 0), options.repeats),
            }
    document = {
        "command": f"python -m bench.dashboard --versions {options.versions} --trajectories {options.trajectories}",
        "commit": commit(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "fill_seconds": round(filled),
        "bar_ms": BAR_MS,
        "over_the_bar": [
            f"{project}: {name}"
            for project, found in pages.items()
            for name, page in found.items()
            if page["median_ms"] > BAR_MS
        ],
        "pages": pages,
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))  # noqa: T201 - a program's output


if __name__ == "__main__":
    main()
