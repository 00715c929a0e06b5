"""`python -m bench.recording`: agents' runs recorded at full load by three processes of the API; one is killed.

The processes are `api.server` as it is run, before one database, object store and broker; only the model is tiny and
random. Each turn of a run is answered by another process than the one before. Of three agents' runs one is not
recorded: that is what recording costs an answer. Writes `bench/results/recording.json`.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bench.recording.agents import TASK, PlayedRun, Replicas, play_all
from bench.recording.checks import check, wait_for_trajectories
from bench.report import RESULTS, commit
from registry.database import transaction, upgrade
from registry.keys import ensure_bootstrap_key
from registry.settings import Settings, load_settings
from registry.wiring import Services, open_services
from tests.e2e.proxied import run_replicas
from tests.fixtures_model import save_tiny_base
from tests.services import BUCKET, run_servers

IDLE_SECONDS = 20.0
_LETTERS, _END = range(67, 77), 2
"""Tokens of the tiny base: `a` to `j`, and what ends an answer."""


def latency(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "answers": len(ordered),
        "median_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[int(0.95 * len(ordered))], 1),
    }


@contextmanager
def serving(home: Path) -> Iterator[tuple[Settings, Services, str]]:
    """The servers, migrated, with a key; the tiny base."""
    key = f"mg_{uuid.uuid4().hex}"
    with run_servers() as servers:
        settings = load_settings(
            service_env=False,
            home=home,
            database_url=SecretStr(servers.database_url),
            broker_url=SecretStr(servers.broker_url),
            s3_url=SecretStr(servers.s3_url),
            s3_bucket=BUCKET,
            base_model=str(save_tiny_base(home / "base")),
            torch_threads=1,
            log_level="warning",
        )
        upgrade(servers.database_url)
        with open_services(settings) as services:
            services.store.ensure_bucket()
            with transaction(services.sessions) as session:
                ensure_bootstrap_key(session, key)
            yield settings, services, key


def sampling() -> dict[str, Any]:
    """Four letters and the end of the answer, drawn at temperature 1: what a random model says is no text else."""
    bias = {str(token): 50 for token in _LETTERS} | {str(_END): 100}
    return {"max_tokens": 8, "min_tokens": 4, "temperature": 1.0, "logit_bias": bias}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="recorded ones; half as many more are not")
    parser.add_argument("--agents", type=int, default=12)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "recording.json")
    options = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)  # noqa: T201 - progress

    plays = [PlayedRun(number, is_recorded=number % 3 != 2) for number in range(options.runs * 3 // 2)]
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (settings, services, key):
        with run_replicas(settings, Path(folder), options.processes) as replicas:
            fleet = Replicas(replicas, key, sampling())
            with fleet.client(0) as client:
                client.post("/v1/tasks", json={"name": TASK}).raise_for_status()
                policy = {"mode": "asked", "idle_seconds": IDLE_SECONDS}
                client.put("/v1/recordings/policy", json=policy).raise_for_status()
            say(f"{options.processes} processes are ready")
            load = play_all(fleet, plays, options.agents)
            with fleet.client(0) as client:
                load["recorders_behind_seconds"] = client.get("/v1/recordings").json()["behind_seconds"]
            say(f"all is answered: {load}")
            closing = wait_for_trajectories(services, settings.spool_dir)
            say("every run is closed")
            with fleet.client(0) as client:
                counted = client.get("/v1/recordings").json()
        found = check(services, plays)
    document = {
        "command": f"python -m bench.recording --runs {options.runs} --agents {options.agents}",
        "commit": commit(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "processes": options.processes,
        "agents": options.agents,
        "load": load | {"answers_per_second": round(sum(map(len, fleet.seconds.values())) / load["seconds"], 1)},
        "seconds_to_the_last_trajectory": round(closing, 1),
        "found": found,
        "service_counts": {name: counted[name] for name in ("recorded", "waiting", "not_recorded")},
        "latency": {"recorded": latency(fleet.seconds[True]), "not_recorded": latency(fleet.seconds[False])},
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))  # noqa: T201 - a program's output


if __name__ == "__main__":
    main()
