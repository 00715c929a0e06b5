"""The Python client: one method for each thing the API does, JSON objects in and out.

Knows the API's paths, and nothing of what stands behind them: no database, no model, no rendering.

    with Client("http://127.0.0.1:8000", api_key) as client:
        client.upload("trajectories.jsonl", task="support")
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
from urllib.parse import quote

from api.client.connection import ApiError, ApiUnreachable, Connection, JsonObject
from api.client.data import KeepingCalls
from api.client.gates import GateCalls
from api.client.routes import RouteCalls
from api.client.schedules import ScheduleCalls

LIVE_STATES = ("queued", "running")
"""A job in another state has ended."""

_BLOCK_BYTES = 65_536
_UPLOAD_SECONDS = 300.0
_CHAT_SECONDS = 330.0  # the service itself gives up after 300 s by default, and says why
_RETRY_SECONDS = 0.5
_GONE_FOR_NOW = (502, 503, 504)


@dataclass(frozen=True)
class Update:
    """Something new about a job that is followed: an event, or the job as it is now."""

    kind: Literal["event", "job"]
    data: JsonObject


class Client(GateCalls, KeepingCalls, RouteCalls, ScheduleCalls):
    """One connection pool to one API. Close it, or use it as a context manager."""

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 30.0) -> None:
        """`timeout` in seconds, of ordinary requests; uploads and chat wait longer."""
        self._connection = Connection(base_url, api_key, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # Tasks and trajectories

    def create_task(
        self,
        name: str,
        *,
        grader: JsonObject | None = None,
        holdout_share: float | None = None,
        shared_turns: int = 0,
        description: str = "",
    ) -> JsonObject:
        """`grader` is `{"kind": ..., **options}`; without one the task is scored by held-out token loss."""
        body: JsonObject = {
            "name": name,
            "description": description,
            "holdout_share": holdout_share,
            "shared_turns": shared_turns,
        }
        return self._connection.send("POST", "/v1/tasks", body | ({"grader": grader} if grader else {}))

    def list_tasks(self) -> list[JsonObject]:
        return self._list("/v1/tasks")

    def upload(
        self,
        source: str | Path | Iterable[JsonObject],
        *,
        task: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> JsonObject:
        """Stream trajectories: a JSONL file, plain or gzip, or any iterable of them. Returns the import's report.

        Nothing is held in memory. Sending the same again is harmless.

        Args:
            task: of those that name none themselves.
            on_bytes: called with the size of each block as it is sent.
        """
        blocks = _file_blocks(Path(source)) if isinstance(source, str | Path) else _json_blocks(source)
        return self._connection.send(
            "POST",
            "/v1/trajectories/import",
            content=_counted(blocks, on_bytes),
            params={"task": task} if task is not None else None,
            headers={"Content-Type": "application/x-ndjson"},
            timeout=_UPLOAD_SECONDS,
        )

    def trajectories(self, *, task: str | None = None, held_out: bool | None = None) -> Iterator[JsonObject]:
        """All of them with their messages, in order of arrival, fetched page by page."""
        chosen = {"task": task, "held_out": held_out, "include_messages": True}
        params = {name: value for name, value in chosen.items() if value is not None}
        yield from self._connection.listed("/v1/trajectories", params)

    # Adapters and versions

    def create_adapter(self, name: str, *, idempotency_key: str | None = None, **options: Any) -> JsonObject:
        """Options: `description`, `strategy`, `memory`, and the settings of `change_adapter`."""
        return self._connection.send("POST", "/v1/adapters", {"name": name, **options}, headers=_once(idempotency_key))

    def list_adapters(self) -> list[JsonObject]:
        return self._list("/v1/adapters")

    def adapter(self, name: str) -> JsonObject:
        return self._connection.send("GET", _adapter(name))

    def versions(self, adapter: str) -> list[JsonObject]:
        """Oldest first."""
        return list(self._connection.listed(f"{_adapter(adapter)}/versions"))

    def version(self, adapter: str, number: int) -> JsonObject:
        return self._connection.send("GET", f"{_adapter(adapter)}/versions/{number}")

    def scores(self, adapter: str) -> JsonObject:
        """R with ACC, BWT, FWT and forgetting."""
        return self._connection.send("GET", f"{_adapter(adapter)}/scores")

    def history(self, adapter: str, alias: str = "champion") -> list[JsonObject]:
        """Every move of the alias, oldest first."""
        return list(self._connection.listed(f"{_alias(adapter, alias)}/history"))

    def promote(
        self, adapter: str, version: int, *, alias: str = "champion", expected: int | None = None, reason: str = ""
    ) -> JsonObject:
        """`expected`: the version that you believe is current, 0 for none; ApiError 409 if it is not."""
        body = {"version": version, "expected_version": expected, "reason": reason}
        return self._connection.send("POST", f"{_alias(adapter, alias)}/promote", body)

    def rollback(
        self,
        adapter: str,
        *,
        alias: str = "champion",
        to: int | None = None,
        at: str | None = None,
        expected: int | None = None,
        reason: str = "",
    ) -> JsonObject:
        """Back to the last version that served before and still may, to version `to` of the alias's history, or to
        where it stood `at` a time (ISO 8601 with its zone). `evidence.skipped` says what was passed over and why."""
        body = {"to_version": to, "to_time": at, "expected_version": expected, "reason": reason}
        return self._connection.send("POST", f"{_alias(adapter, alias)}/rollback", body)

    # Jobs

    def train(self, adapter: str, task: str, *, idempotency_key: str | None = None, **options: Any) -> JsonObject:
        """Queue a training. Options: `training` (fields of TrainingConfig), `parent`, `min_reward`, `promote`,
        `insights` (rules in words for the weaver's cue).

        `method` is `sft`, or learns from reward with fields of GrpoConfig: `grpo`, for which `environment` may give
        the items (`{"name", "options", "items"}`), or `grpo_recorded`.
        """
        body = {"kind": "train_weaver", "adapter": adapter, "task": task, **options}
        return self._connection.send("POST", "/v1/jobs", body, headers=_once(idempotency_key))

    def train_trigger(
        self, adapter: str, parent: int, *, idempotency_key: str | None = None, **options: Any
    ) -> JsonObject:
        """Queue the training of a version's trigger. Options: `tasks` to play, `environment`, `training` (fields of
        TriggerConfig), `min_reward`, `promote`.
        """
        body = {"kind": "train_trigger", "adapter": adapter, "parent": parent, **options}
        return self._connection.send("POST", "/v1/jobs", body, headers=_once(idempotency_key))

    def evaluate(self, adapter: str, version: int, *, idempotency_key: str | None = None) -> JsonObject:
        body = {"kind": "evaluate", "adapter": adapter, "version": version}
        return self._connection.send("POST", "/v1/jobs", body, headers=_once(idempotency_key))

    def job(self, job_id: str) -> JsonObject:
        return self._connection.send("GET", _job(job_id))

    def jobs(self, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: `data`, and `next_cursor` for the next one."""
        params: JsonObject = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        return self._connection.send("GET", "/v1/jobs", params=params)

    def cancel(self, job_id: str) -> JsonObject:
        return self._connection.send("POST", f"{_job(job_id)}/cancel")

    def events(self, job_id: str, *, after: int = 0, limit: int = 200) -> list[JsonObject]:
        """Oldest first, behind the `seq` given."""
        return self._list(f"{_job(job_id)}/events", params={"after": after, "limit": limit})

    def follow(self, job_id: str, *, after: int = 0, patience_seconds: float = 60.0) -> Iterator[Update]:
        """A job's events behind `after`, and its states as they change, until it has ended.

        A broken connection is opened again where it broke off.

        Raises:
            ApiUnreachable: the API was gone for `patience_seconds`.
        """
        job: JsonObject | None = None
        heard = time.monotonic()
        while True:
            try:
                for number, kind, data in self._connection.stream(f"{_job(job_id)}/stream", after):
                    heard = time.monotonic()
                    if kind == "event":
                        after = number
                        yield Update("event", data)
                    elif kind == "job" and data != job:  # a new connection begins with a state known already
                        job = data
                        yield Update("job", data)
                if job is not None and job["state"] not in LIVE_STATES:
                    return
            except (ApiUnreachable, ApiError) as error:
                lasting = isinstance(error, ApiError) and error.status not in _GONE_FOR_NOW
                if lasting or time.monotonic() - heard > patience_seconds:
                    raise
            time.sleep(_RETRY_SECONDS)

    # Chat and keys

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

    def create_key(self, name: str, scopes: list[str]) -> JsonObject:
        """`key` in the reply is shown this once."""
        return self._connection.send("POST", "/v1/keys", {"name": name, "scopes": scopes})

    def list_keys(self) -> list[JsonObject]:
        return self._list("/v1/keys")

    def revoke_key(self, key_id: str) -> JsonObject:
        return self._connection.send("DELETE", f"/v1/keys/{quote(key_id, safe='')}")

    def _list(self, path: str, *, params: JsonObject | None = None) -> list[JsonObject]:
        data: list[JsonObject] = self._connection.send("GET", path, params=params)["data"]
        return data


def _adapter(name: str) -> str:
    return f"/v1/adapters/{quote(name, safe='')}"


def _alias(adapter: str, alias: str) -> str:
    return f"{_adapter(adapter)}/aliases/{quote(alias, safe='')}"


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _once(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


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
