"""`python -m bench.words`: what an import costs with the words of its trajectories indexed, and without.

Three databases get the same trajectories, a thousand each in turn, so that whatever else the machine does meets all:
one indexes nothing, one indexes each batch within its transaction, and one indexes behind, as the product does: in
another process, as fast as it can. Lines are read, checked, counted in tokens of the default base and stored by the
functions that the API calls; HTTP is left out. Writes `bench/results/words.json`. Minutes on two cores.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from api.endpoints.tokens import token_limit
from bench.report import RESULTS, commit
from registry.database import make_engine, make_sessions, transaction, upgrade
from registry.keys import DEFAULT_PROJECT, ensure_bootstrap_key
from registry.models import Project, TrajectoryWords
from registry.settings import Settings, load_settings
from registry.tasks import create_task
from registry.trajectories.files import SizeLimits, TrajectoryFile
from registry.trajectories.imports import TokenLimit, import_batch
from registry.trajectories.words import index_words, projects_to_index
from registry.wiring import Services, open_services
from tests.fixtures_database import clone_database
from tests.services import BUCKET, Servers, run_servers

ARMS = ("nothing", "within", "behind")
TEMPLATE = "memgen_words"
_VOCABULARY, _MESSAGES, _WORDS = 30_000, 6, 40
"""Different words; messages of a trajectory; words of a message. About 1.6 kB of text each."""
_CHUNK = 1000


@dataclass
class ImportArm:
    name: str
    services: Services
    project_id: uuid.UUID
    chunks: list[float] = field(default_factory=list)
    """Seconds that each thousand took."""
    late_seconds: float = 0.0
    """From the end of each chunk until all of it was indexed."""

    def take(self, lines: Sequence[bytes], tokens: TokenLimit) -> None:
        settings = self.services.settings
        file = TrajectoryFile("chat", SizeLimits(settings.max_trajectory_bytes, settings.max_document_bytes))
        began = time.perf_counter()
        for start in range(0, len(lines), settings.import_batch_lines):
            batch = [*file.feed(b"".join(lines[start : start + settings.import_batch_lines]))]
            with transaction(self.services.sessions) as session:
                results = import_batch(session, self.project_id, batch, default_task="t", tokens=tokens)
                while self.name == "within" and index_words(session, self.project_id):
                    pass
            assert {result.status for result in results} == {"accepted"}
        self.chunks.append(time.perf_counter() - began)

    def wait_until_indexed(self) -> None:
        began = time.perf_counter()
        while self.name == "behind":
            with transaction(self.services.sessions) as session:
                if not projects_to_index(session):
                    break
            time.sleep(0.02)
        self.late_seconds += time.perf_counter() - began


def lines_of(count: int) -> list[bytes]:
    """Trajectories as JSONL. Few words are frequent and most are rare, as in any language."""
    draw = random.Random(0)  # noqa: S311 - the same text each time
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(_VOCABULARY)]
    shares = [*accumulate(1 / (place + 1) for place in range(_VOCABULARY))]
    lines = []
    for number in range(count):
        texts = [" ".join(draw.choices(words, cum_weights=shares, k=_WORDS)) for _ in range(_MESSAGES)]
        messages = [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(texts)]
        lines.append(json.dumps({"messages": messages, "trajectory_id": f"t{number}"}).encode() + b"\n")
    return lines


def index_until(stop: Event, database_url: str) -> None:
    """What the beat does, without a pause between two ticks."""
    engine = make_engine(database_url)
    sessions = make_sessions(engine)
    while not stop.is_set():
        with transaction(sessions) as session:
            waiting = projects_to_index(session)
        for project_id in waiting:
            with transaction(sessions) as session:
                index_words(session, project_id)
        if not waiting:
            time.sleep(0.05)
    engine.dispose()


@contextmanager
def arms(servers: Servers, home: Path) -> Iterator[list[ImportArm]]:
    """One for each way, each with a database of its own."""
    with make_engine(servers.database_url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"create database {TEMPLATE}"))
    upgrade(sa.make_url(servers.database_url).set(database=TEMPLATE).render_as_string(hide_password=False))
    with ExitStack() as cleanup:
        made = []
        for name in ARMS:
            url = cleanup.enter_context(clone_database(servers, TEMPLATE))
            services = cleanup.enter_context(open_services(_settings(servers, url, home)))
            if name == "behind":
                cleanup.enter_context(_indexing(url))
            made.append(ImportArm(name, services, _project(services)))
        yield made


@contextmanager
def _indexing(database_url: str) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=index_until, args=(stop, database_url))
    process.start()
    yield
    stop.set()
    process.join()


def _settings(servers: Servers, url: str, home: Path) -> Settings:
    return load_settings(
        service_env=False, home=home, database_url=SecretStr(url), s3_url=SecretStr(servers.s3_url), s3_bucket=BUCKET
    )


def _project(services: Services) -> uuid.UUID:
    with transaction(services.sessions) as session:
        ensure_bootstrap_key(session, f"mg_{uuid.uuid4().hex}")
        project_id = session.scalars(sa.select(Project.id).where(Project.name == DEFAULT_PROJECT)).one()
        create_task(session, project_id, "t", grader={"kind": "exact"}, holdout_share=0.1)
    return project_id


def _sizes(arm: ImportArm) -> dict[str, Any]:
    with transaction(arm.services.sessions) as session:
        table = session.scalar(sa.select(sa.func.pg_total_relation_size("trajectories")))
        words = session.scalar(sa.select(sa.func.pg_total_relation_size("trajectory_words")))
        indexed = session.scalar(sa.select(sa.func.count()).select_from(TrajectoryWords))
    return {
        "indexed": indexed,
        "trajectories_mb": round((table or 0) / 1e6, 1),
        "words_mb": round((words or 0) / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "words.json")
    options = parser.parse_args()
    lines = lines_of(options.trajectories)
    with tempfile.TemporaryDirectory() as folder, run_servers() as servers, arms(servers, Path(folder)) as every:
        tokens = token_limit(every[0].services)
        for number, start in enumerate(range(0, len(lines), _CHUNK)):
            for turn in range(len(every)):  # each arm is first as often as the others
                arm = every[(turn + number) % len(every)]
                arm.take(lines[start : start + _CHUNK], tokens)
                arm.wait_until_indexed()
        plain = sum(every[0].chunks)
        document = {
            "command": f"python -m bench.words --trajectories {options.trajectories}",
            "commit": commit(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "bytes": sum(map(len, lines)),
            "arms": {
                arm.name: {
                    "seconds": round(sum(arm.chunks), 1),
                    "over_nothing": round(sum(arm.chunks) / plain - 1, 3),
                    "late_seconds_a_thousand": round(arm.late_seconds / len(arm.chunks), 2),
                    **_sizes(arm),
                }
                for arm in every
            },
        }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))  # noqa: T201 - a program's output


if __name__ == "__main__":
    main()
