"""`memgen trajectories`, `trace`, `delete-data`, `deletions` and `gc`: what data there is, where it went, and how it is
deleted."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.arguments import ApplyOption
from api.cli.completion import task_names
from api.cli.output import JsonOption, moment, print_line, print_note, print_table
from api.http.json_object import JsonObject
from registry.wording import counted


class ScopeArgument(str, Enum):  # noqa: UP042 - typer reads the values of a plain enum
    trajectory = "trajectory"
    session = "session"
    user = "user"


class PolicyOption(str, Enum):  # noqa: UP042 - as above
    keep = "keep"
    retrain = "retrain"
    withdraw = "withdraw"


def delete_data(
    context: typer.Context,
    scope: Annotated[ScopeArgument, typer.Argument(help="What to delete.", show_default=False)],
    identifier: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The service's id of a trajectory, a session's id, or metadata.user.", show_default=False
        ),
    ],
    policy: Annotated[
        PolicyOption, typer.Option(help="What becomes of versions that learned the data.")
    ] = PolicyOption.keep,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    expected: Annotated[
        int | None, typer.Option(min=0, help="Trajectories that the dry run showed; refused if they are not as many.")
    ] = None,
    apply: ApplyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete data for good: from the database, the object store, and all copies. Without --apply, a dry run."""
    print_answer(
        context,
        as_json,
        lambda client: client.deletions.create(
            scope.value, identifier, policy=policy.value, reason=reason, dry_run=not apply, expected=expected
        ),
        lambda found: _print_delete_data(found, apply),
    )


def _print_delete_data(found: JsonObject, apply: bool) -> None:
    _print_affected(found["affected"])
    if not apply:
        print_note("Nothing was deleted. Add --apply to delete it.")
    else:
        after = "" if found["bytes_gone"] else " Some objects are still to be removed; the service goes on with it."
        print_line(f"Deleted, recorded as {found['id']}.{after}")
        _print_retrainings(found["retrainings"])


def deletions(
    context: typer.Context,
    deletion: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Of one, to see all of it.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest deletions, or show one: what it touched, and how training anew without the data goes."""
    print_answer(
        context,
        as_json,
        lambda client: client.deletions.get(deletion) if deletion else client.deletions.list(),
        lambda found: (_print_deletion if deletion else _print_deletions)(found),
    )


def trajectories(
    context: typer.Context,
    text: Annotated[
        str | None,
        typer.Option(
            help='Only those with these words: all of them, "in a row", `or` between alternatives, `-` before what '
            "must not be there. They are found seconds after an upload.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Only those of this task.", show_default=False, autocompletion=task_names)
    ] = None,
    session: Annotated[str | None, typer.Option(help="Only those of this session.", show_default=False)] = None,
    version: Annotated[
        str | None, typer.Option(help="Only those that this version answered, as bot@7.", show_default=False)
    ] = None,
    held_out: Annotated[
        bool | None, typer.Option("--held-out/--trained-on", help="Only those of this side.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, the newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List trajectories, the newest first, or search them."""
    wanted: dict[str, Any] = {"text": text, "task": task, "session_id": session, "held_out": held_out}
    wanted["adapter_version"] = version
    print_answer(
        context,
        as_json,
        lambda client: client.trajectories.list(newest=True, limit=limit, **wanted),
        _print_trajectories,
    )


def _print_trajectories(found: JsonObject) -> None:
    rows = [
        (
            row["id"],
            moment(row["created_at"]),
            row["task"],
            row["session_id"],
            None if row["reward"] is None else f"{row['reward']:g} {row['reward_source'] or ''}".strip(),
            "held out" if row["held_out"] else "trained on",
            row["tokens"],
        )
        for row in found["data"]
    ]
    columns = ("id", "arrived", "task", "session", "reward", "side", "#tokens")
    print_table(columns, rows, empty="None, or none that fits.")
    if found["next_cursor"]:
        print_note("There are more; --limit shows up to 200, GET /v1/trajectories all.")


def trace(
    context: typer.Context,
    trajectory: Annotated[str, typer.Argument(help="The service's id of a trajectory.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show where a trajectory went: suites, datasets, versions, and what serves them."""
    print_answer(context, as_json, lambda client: client.trajectories.lineage(trajectory), _print_trace)


def _print_trace(found: JsonObject) -> None:
    share = "held out" if found["held_out"] else "trained on"
    print_line(f"Trajectory {found['id']} of {found['task']}, {share}.")
    rows: list[tuple[object, ...]] = [("suite", suite, "") for suite in found["suites"]]
    rows += [("dataset", dataset["hash"], dataset["task"]) for dataset in found["datasets"]]
    rows += [("version", f"{v['adapter']}@{v['number']}", _serving(v)) for v in found["versions"]]
    print_table(("", "", ""), rows, empty="Nothing was made of it yet.")


def gc(context: typer.Context, apply: ApplyOption = False, as_json: JsonOption = False) -> None:
    """Find objects in the store that nothing refers to; --apply removes them."""
    print_answer(context, as_json, lambda client: client.garbage.collect(dry_run=not apply), _print_gc)


def _print_gc(found: JsonObject) -> None:
    for key in found["objects"]:
        print_line(key)
    for folder in found.get("folders", ()):
        print_line(f"{folder}, the folder of a process that was killed")
    verb = "would be" if found["dry_run"] else "was" if len(found["objects"]) == 1 else "were"
    print_line(f"{counted(len(found['objects']), 'object')} of {counted(found['bytes'], 'byte')} {verb} removed.")


def _print_affected(affected: JsonObject) -> None:
    rows: list[tuple[object, ...]] = [
        ("trajectories", affected["trajectories"], ""),
        ("answers", affected["answers"], ""),
        ("stored responses", affected.get("responses", 0), ""),
        ("feedback on sessions", affected.get("feedback", 0), ""),
        ("recorded runs", affected.get("runs", 0), ""),
    ]
    rows += [("suite", f"{s['task']}#{s['number']}", counted(s["items"], "item")) for s in affected["suites"]]
    rows += [("dataset", d["hash"], f"{counted(d['items'], 'item')} of {d['task']}") for d in affected["datasets"]]
    rows += [("job", job, "begins anew without it") for job in affected["jobs"]]
    rows += [("version", f"{v['adapter']}@{v['number']}", _serving(v)) for v in affected["versions"]]
    for name in ("suites", "datasets", "jobs", "versions"):
        left_out = affected.get("counts", {}).get(name, 0) - len(affected[name])
        if left_out > 0:
            rows.append((f"more {name}", left_out, "not listed"))
    print_table(("", "", ""), rows)
    for moved in affected.get("moved", ()):
        print_line(f"{moved['alias']}: version {moved['from']} to {moved['to']}.")
    for other in affected.get("retrained_by", ()):
        print_line(f"The retraining of deletion {other}, still under way, leaves this data out too.")
    for alias in affected.get("stranded", ()):
        print_line(f"{alias} has no unaffected version to go to: it is refused until one is promoted.", style="yellow")


def _print_deletions(found: JsonObject) -> None:
    rows = [
        (
            row["id"],
            moment(row["created_at"]),
            row["scope"],
            row["policy"],
            len(row["trajectories"]),
            "gone" if row["bytes_gone"] else "going",
            _summary(row["retrainings"]),
            row["actor"],
            row["reason"],
        )
        for row in found["data"]
    ]
    print_table(("id", "at", "scope", "policy", "#trajectories", "bytes", "retrainings", "by", "reason"), rows)


def _print_deletion(found: JsonObject) -> None:
    print_line(f"{found['scope']}, policy {found['policy']}, {moment(found['created_at'])} by {found['actor']}")
    if found["reason"]:
        print_line(f"Reason: {found['reason']}")
    _print_affected(found["affected"])
    print_line("All bytes are gone." if found["bytes_gone"] else "Some objects are still to be removed.")
    _print_retrainings(found["retrainings"])


def _print_retrainings(steps: list[JsonObject]) -> None:
    if not steps:
        return
    rows = [
        (
            step["chain"],
            f"{step['adapter']}@{step['replaces']}",
            step["task"],
            step["state"],
            f"{step['adapter']}@{step['version']}" if step["version"] else None,
            step["job"],
            step["stopped"],
        )
        for step in steps
    ]
    print_table(("chain", "replaces", "task", "state", "new version", "job", "stopped because"), rows)


def _summary(steps: list[JsonObject]) -> str:
    """`2 succeeded, 1 waiting`."""
    counts = Counter(step["state"] for step in steps)
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _serving(version: JsonObject) -> str:
    parts = [*version["aliases"], *(f"route {number}" for number in version["routes"])]
    parts += [counted(version["exposures"], "answer")] if version["exposures"] else []
    return ", ".join(parts)
