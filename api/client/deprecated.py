"""`Client` as it was called before: flat names, names of everyday calls, and listings that gave everything at once.

The next release drops this room and `tests/api/client/`.
"""

import warnings
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.http.json_object import JsonObject
from memgen_client import JsonClient

NEW_NAMES = {
    "adapter": "adapters.get",
    "adapter_changes": "adapters.changes",
    "alias_at": "aliases.get",
    "apply_retention": "retention.apply",
    "approve": "gates.approve",
    "archive": "versions.archive",
    "cancel": "jobs.cancel",
    "change_adapter": "adapters.change",
    "change_schedule": "schedules.change",
    "collect_garbage": "garbage.collect",
    "compare": "versions.compare",
    "create_adapter": "adapters.create",
    "create_key": "keys.create",
    "create_schedule": "schedules.create",
    "create_task": "tasks.create",
    "delete_data": "deletions.create",
    "delete_schedule": "schedules.delete",
    "deletion": "deletions.get",
    "end_route": "routes.end",
    "evaluate": "jobs.evaluate",
    "events": "jobs.events",
    "export_version": "versions.export_file",
    "follow": "jobs.follow",
    "gate": "gates.get",
    "gate_items": "gates.items",
    "history": "aliases.history",
    "import_version": "versions.import_file",
    "job": "jobs.get",
    "list_adapters": "adapters.list",
    "list_keys": "keys.list",
    "list_schedules": "schedules.list",
    "list_tasks": "tasks.list",
    "promote": "aliases.promote",
    "reject": "gates.reject",
    "revoke_key": "keys.revoke",
    "rollback": "aliases.rollback",
    "route": "routes.get",
    "route_results": "routes.results",
    "schedule": "schedules.get",
    "schedule_history": "schedules.history",
    "schedule_runs": "schedules.runs",
    "scores": "adapters.scores",
    "set_retention": "retention.change",
    "standings": "versions.states",
    "start_route": "routes.create",
    "stream_chat": "chat.stream",
    "tag": "versions.tag",
    "train": "jobs.train",
    "train_trigger": "jobs.train_trigger",
    "trajectory_lineage": "trajectories.lineage",
    "unarchive": "versions.unarchive",
    "untag": "versions.untag",
    "version": "versions.get",
    "version_history": "versions.history",
    "version_lineage": "versions.lineage",
}
"""A method of the former client, and the same method of `memgen_client.JsonClient`."""

CALLED = {
    "chat": "create",
    "deletions": "list",
    "jobs": "list",
    "retention": "get",
    "routes": "list",
    "trajectories": "list",
    "versions": "list",
}
"""A noun whose name was a method, and that method: `client.versions("bot")` was `client.versions.list("bot")`."""

WHOLE = {
    "aliases": ("history",),
    "recordings": ("runs",),
    "trajectories": ("list",),
    "versions": ("list", "states"),
}
"""Listings that gave every row, and give a page now; `all`, or `all_` before the name, gives every row."""


class Client(JsonClient):
    """The former client. Type checkers see a `JsonClient`, so that typed code uses the new names."""

    if not TYPE_CHECKING:

        def __init__(self, base_url: str, api_key: str, *, timeout: float = 30.0) -> None:
            warnings.warn(
                "api.client.Client is now memgen_client.JsonClient; the old one goes with the next release",
                DeprecationWarning,
                stacklevel=2,
            )
            super().__init__(base_url, api_key, timeout=timeout)
            for name in sorted({*CALLED, *WHOLE}):
                setattr(self, name, _FormerNoun(name, getattr(self, name)))

        def __getattr__(self, name: str) -> Any:
            if name not in NEW_NAMES or "_transport" not in vars(self):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return attrgetter(NEW_NAMES[name])(self)

        def upload(
            self,
            source: str | Path | Iterable[JsonObject],
            *,
            task: str | None = None,
            format: str | None = None,  # noqa: A002 - the name of the API's own parameter
            on_bytes: Callable[[int], None] | None = None,
        ) -> JsonObject:
            """`on_bytes` is called with the size of each block as it is sent."""
            before = 0

            def on_progress(sent: int, _: int | None) -> None:
                nonlocal before
                before, size = sent, sent - before
                on_bytes(size)

            options = {} if on_bytes is None else {"on_progress": on_progress}
            return self.trajectories.upload(source, task=task, format=format, **options)

        def give_feedback(
            self, completion_id: str, reward: float, *, source: str = "user", comment: str = ""
        ) -> JsonObject:
            return self.feedback.give(reward, completion=completion_id, source=source, comment=comment)


class _FormerNoun:
    """A noun as it was: it may have been called itself, and its listings gave every row."""

    def __init__(self, name: str, noun: Any) -> None:
        self._name, self._noun = name, noun

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._name not in CALLED:
            raise TypeError(f"{self._name!r} is no method")
        return getattr(self, CALLED[self._name])(*args, **options)

    def __getattr__(self, method: str) -> Any:
        if method not in WHOLE.get(self._name, ()):
            return getattr(self._noun, method)
        every = getattr(self._noun, "all" if method == "list" else f"all_{method}")
        if self._name == "trajectories":
            return lambda **wanted: every(**wanted, include_messages=True)
        return every if self._name == "recordings" else lambda *args, **options: [*every(*args, **options)]
