"""The client's method names from before it had nouns, accepted for one release: `client.list_tasks()`.

The next release drops this module, the two classes where they are inherited, and `tests/api/client/test_deprecated.py`.
"""

import warnings
from operator import attrgetter
from typing import TYPE_CHECKING, Any

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
    "deletions": "deletions.list",
    "end_route": "routes.end",
    "evaluate": "jobs.evaluate",
    "events": "jobs.events",
    "export_version": "versions.export_file",
    "gate": "gates.get",
    "gate_items": "gates.items",
    "history": "aliases.history",
    "import_version": "versions.import_file",
    "job": "jobs.get",
    "jobs": "jobs.list",
    "list_adapters": "adapters.list",
    "list_keys": "keys.list",
    "list_schedules": "schedules.list",
    "list_tasks": "tasks.list",
    "reject": "gates.reject",
    "retention": "retention.get",
    "revoke_key": "keys.revoke",
    "route": "routes.get",
    "route_results": "routes.results",
    "routes": "routes.list",
    "schedule": "schedules.get",
    "schedule_history": "schedules.history",
    "schedule_runs": "schedules.runs",
    "scores": "adapters.scores",
    "set_retention": "retention.change",
    "standings": "versions.states",
    "start_route": "routes.create",
    "tag": "versions.tag",
    "train_trigger": "jobs.train_trigger",
    "trajectories": "trajectories.list",
    "trajectory_lineage": "trajectories.lineage",
    "unarchive": "versions.unarchive",
    "untag": "versions.untag",
    "version": "versions.get",
    "version_history": "versions.history",
    "version_lineage": "versions.lineage",
    "versions": "versions.list",
}
"""A method of `Client` as it was called before, and the same method now."""

# Type checkers do not see the classes' methods, so that typed code uses the new names.


class FlatNames:
    """The old names of `Client` that are not the name of a noun today."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # A noun of the same name is set when the client is made: before that there is nothing to lead to.
            if name not in NEW_NAMES or NEW_NAMES[name].partition(".")[0] == name:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            _warn(name)
            return attrgetter(NEW_NAMES[name])(self)


class CalledAsMethod:
    """A noun whose name was a method: `client.versions("bot")` is `client.versions.list("bot")`."""

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **options: Any) -> Any:
            noun = type(self).__name__.lower()
            _warn(noun)
            return getattr(self, NEW_NAMES[noun].removeprefix(f"{noun}."))(*args, **options)


def _warn(name: str) -> None:
    warnings.warn(
        f"Client.{name} is now Client.{NEW_NAMES[name]}; the old name goes with the next release",
        DeprecationWarning,
        stacklevel=3,
    )
