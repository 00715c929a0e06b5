"""The Python client: an object for each noun of the API, with its calls as methods; JSON objects in and out.

Knows nothing of what stands behind the API: no database, no model, no rendering.

    with Client("http://127.0.0.1:8000", api_key) as client:
        client.tasks.create("support")
        client.upload("trajectories.jsonl", task="support")
        client.adapters.create("support-bot")
        job = client.train("support-bot", "support")
        for update in client.follow(job["id"]):
            print(update.kind, update.data)

Everything that fails raises ApiError or ApiUnreachable, see `connection.py`.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from api.client.adapters import Adapters
from api.client.aliases import Aliases
from api.client.bases import Bases
from api.client.connection import ApiError, ApiUnreachable, Connection
from api.client.deletions import Deletions
from api.client.deprecated import FlatNames
from api.client.feedback import FeedbackReports
from api.client.gates import Gates
from api.client.jobs import Jobs
from api.client.judges import Judges
from api.client.keys import Keys
from api.client.loops import Loops
from api.client.paths import CHAMPION, alias_path, job_path
from api.client.recordings import Recordings
from api.client.retention import Garbage, Retention
from api.client.routes import Routes
from api.client.schedules import Schedules
from api.client.tasks import Tasks
from api.client.trajectories import Trajectories
from api.client.upstreams import Upstreams
from api.client.versions import Versions
from api.client.webhooks import Webhooks
from api.http.json_object import JsonObject

LIVE_STATES = ("queued", "running")
"""A job in another state has ended."""

_BLOCK_BYTES = 65_536
_UPLOAD_SECONDS = 300.0
_CHAT_SECONDS = 330.0  # the service itself gives up after 300 s by default, and says why
_RETRY_SECONDS = 0.5
_GONE_FOR_NOW = (502, 503, 504)


@dataclass(frozen=True)
class JobUpdate:
    """Something new about a job that is followed: an event, or the job as it is now."""

    kind: Literal["event", "job"]
    data: JsonObject


class Client(FlatNames):
    """One connection pool to one API. Close it, or use it as a context manager.

    The client itself has what a user does every day, and what reads well without a noun: `upload`, `train`, `follow`,
    `promote`, `rollback`, `chat`, `stream_chat` and `give_feedback`. All else is a method of a noun, such as
    `client.gates.approve("support-bot", 7)`.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 30.0) -> None:
        """`timeout` in seconds, of ordinary requests; uploads and chat wait longer."""
        self._connection = connection = Connection(base_url, api_key, timeout)
        self.tasks = Tasks(connection)
        self.trajectories = Trajectories(connection)
        self.recordings = Recordings(connection)
        self.adapters = Adapters(connection)
        self.versions = Versions(connection)
        self.aliases = Aliases(connection)
        self.gates = Gates(connection)
        self.feedback = FeedbackReports(connection)
        self.routes = Routes(connection)
        self.jobs = Jobs(connection)
        self.judges = Judges(connection)
        self.schedules = Schedules(connection)
        self.webhooks = Webhooks(connection)
        self.loops = Loops(connection)
        self.retention = Retention(connection)
        self.garbage = Garbage(connection)
        self.deletions = Deletions(connection)
        self.keys = Keys(connection)
        self.upstreams = Upstreams(connection)
        self.base = Bases(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def upload(
        self,
        source: str | Path | Iterable[JsonObject],
        *,
        task: str | None = None,
        format: str | None = None,  # noqa: A002 - the name of the API's own parameter
        on_bytes: Callable[[int], None] | None = None,
    ) -> JsonObject:
        """Stream trajectories: a file, plain or gzip, or any iterable of them. Returns the import's report.

        Nothing is held in memory. Sending the same again is harmless.

        Args:
            task: the task of the trajectories that name none themselves.
            format: `chat`, `atif`, `otlp`, `sharegpt` or `hf-tools`; None for `chat`. A file is JSONL,
                one JSON list, or documents of the format.
            on_bytes: called with the size of each block as it is sent.
        """
        blocks = _file_blocks(Path(source)) if isinstance(source, str | Path) else _json_blocks(source)
        return self._connection.send(
            "POST",
            "/v1/trajectories/import",
            content=_counted(blocks, on_bytes),
            params={name: value for name, value in (("task", task), ("format", format)) if value is not None},
            headers={"Content-Type": "application/x-ndjson"},
            timeout=_UPLOAD_SECONDS,
        )

    def train(self, adapter: str, task: str, *, idempotency_key: str | None = None, **options: Any) -> JsonObject:
        """Queue a training. Options: `training` (fields of TrainingConfig), `parent`, `min_reward`, `promote`,
        `insights` (rules in words for the weaver's cue).

        `method` is `sft`, or learns from reward with fields of GrpoConfig: `grpo`, for which `environment` may give
        the items (`{"name", "options", "items"}`), or `grpo_recorded`.
        """
        body = {"kind": "train_weaver", "adapter": adapter, "task": task, **options}
        return self._connection.send("POST", "/v1/jobs", body, idempotency_key=idempotency_key)

    def follow(self, job_id: str, *, after: int = 0, patience_seconds: float = 60.0) -> Iterator[JobUpdate]:
        """A job's events after number `after`, and its states as they change, until it has ended.

        A broken connection is opened again where it broke off.

        Raises:
            ApiUnreachable: the API was gone for `patience_seconds`.
        """
        job: JsonObject | None = None
        heard = time.monotonic()
        while True:
            try:
                for number, kind, data in self._connection.stream(f"{job_path(job_id)}/stream", after):
                    heard = time.monotonic()
                    if kind == "event":
                        after = number
                        yield JobUpdate("event", data)
                    elif kind == "job" and data != job:  # a new connection begins with a state known already
                        job = data
                        yield JobUpdate("job", data)
                if job is not None and job["state"] not in LIVE_STATES:
                    return
            except (ApiUnreachable, ApiError) as error:
                lasting = isinstance(error, ApiError) and error.status not in _GONE_FOR_NOW
                if lasting or time.monotonic() - heard > patience_seconds:
                    raise
            time.sleep(_RETRY_SECONDS)

    def promote(
        self, adapter: str, version: int, *, alias: str = CHAMPION, expected: int | None = None, reason: str = ""
    ) -> JsonObject:
        """`expected`: the version that you believe is current, 0 for none; ApiError 409 if it is not."""
        body = {"version": version, "expected_version": expected, "reason": reason}
        return self._connection.send("POST", f"{alias_path(adapter, alias)}/promote", body)

    def rollback(
        self,
        adapter: str,
        *,
        alias: str = CHAMPION,
        to: int | None = None,
        at: str | None = None,
        expected: int | None = None,
        reason: str = "",
    ) -> JsonObject:
        """Move the alias back; `evidence.skipped` in the reply says what was passed over and why.

        Args:
            to: a version of the alias's history; by default the last that served before and still may.
            at: or a time (ISO 8601 with its zone), to go back to the version that the alias named then.
            expected: as for `promote`.
        """
        body = {"to_version": to, "to_time": at, "expected_version": expected, "reason": reason}
        return self._connection.send("POST", f"{alias_path(adapter, alias)}/rollback", body)

    def chat(self, model: str, messages: list[JsonObject], **options: Any) -> JsonObject:
        """OpenAI's chat completion; `memgen` in it says which version answered. Options as OpenAI's."""
        body = {"model": model, "messages": messages, **options}
        return self._connection.send("POST", "/v1/chat/completions", body, timeout=_CHAT_SECONDS)

    def stream_chat(self, model: str, messages: list[JsonObject], **options: Any) -> Iterator[JsonObject]:
        """The same as it is written: OpenAI's chunks, of which the last has `usage` and the one before it `memgen`.

        Closing the iterator ends the answer.
        """
        body = {"model": model, "messages": messages, **options}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        return self._connection.chunks("/v1/chat/completions", body, timeout=_CHAT_SECONDS)

    def give_feedback(
        self, completion_id: str, reward: float, *, source: str = "user", comment: str = ""
    ) -> JsonObject:
        """`reward` from 0 to 1. Sending the same again is harmless; another one of the same source is refused."""
        return self.feedback.give(reward, completion=completion_id, source=source, comment=comment)


def _file_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _json_blocks(items: Iterable[JsonObject]) -> Iterator[bytes]:
    waiting = bytearray()
    for item in items:
        waiting += json.dumps(item).encode() + b"\n"
        if len(waiting) >= _BLOCK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _counted(blocks: Iterator[bytes], on_bytes: Callable[[int], None] | None) -> Iterator[bytes]:
    for block in blocks:
        yield block
        if on_bytes is not None:
            on_bytes(len(block))
