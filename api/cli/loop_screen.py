"""The screen of `memgen loop show`: one loop in at most 80 columns and some thirty lines."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime

from api.cli.output import moment, moment_in, percent, print_line, print_table
from api.http.json_object import JsonObject
from registry.wording import counted

WIDTH = 79
_STAGES = {
    "arrived": "runs that arrived",
    "recorded": "  recorded here",
    "refused": "  not recorded",
    "rewarded": "rewarded",
    "judged": "judged",
    "trained": "versions trained",
    "passed": "  passed their gate",
    "rejected": "  rejected by it",
    "tried": "canaries tried",
    "stopped": "  stopped as worse",
    "promoted": "promoted",
    "rolled_back": "  rolled back",
}
_OPTIONAL = ("refused", "judged", "rolled_back")
"""Stages that are left out where they never were."""
_OUTCOMES = {
    "unchecked": "is not judged yet",
    "trying": "is being tried",
    "waiting": "passed, and waits",
    "undecided": "was tried without a result",
    "stopped": "was stopped as worse",
    "rolled_back": "was rolled back",
}
_SHOWN_ATTEMPTS = 3
_NOT_COUNTED = {
    "unrewarded": "without a reward",
    "low_reward": "with a reward below {min_reward:g}",
    "failed": "marked as failures",
    "held_out": "held out",
}
_LONGEST = 300
"""Characters of a reason: an error may be a page, and `memgen jobs show` has all of it."""
_STALE_MINUTES = 5
"""The beat looks every few seconds."""


def print_screen(loop: JsonObject) -> None:
    _print_head(loop)
    print_line("")
    rows = [
        (_STAGES.get(each["stage"], each["stage"]), each["day"], each["week"], each["total"], _ago(each["last"]))
        for each in loop["stages"]
        if each["total"] or each["stage"] not in _OPTIONAL
    ]
    print_table(("", "#last day", "#last week", "#in all", "#last"), rows)
    print_line("")
    _print_waiting(loop)
    if loop["attempts"]:
        print_line("")
        for attempt in loop["attempts"][:_SHOWN_ATTEMPTS]:
            outcome = _OUTCOMES.get(attempt["outcome"], attempt["outcome"])
            # The whole of it, with intervals and tests, is in `memgen gate show`.
            _print_item(f"{loop['adapter']}@{attempt['version']} {outcome}", attempt["reason"].partition("; ")[0])


def _print_head(loop: JsonObject) -> None:
    champion = f"{loop['adapter']}@{loop['champion']}" if loop["champion"] else "the bare base"
    since = f" since {moment(loop['champion_since'])}" if loop["champion"] else ""
    _print_wrapped(f"{loop['name']} learns {loop['task']}. Champion: {champion}{since}.", style="bold")
    style = "green" if loop["state"] == "running" else "red" if loop["held"] else "yellow"
    held = "; it starts no training" if loop["held"] else ""
    _print_wrapped(f"State: {loop['state']} since {moment(loop['since'])}{held}.", style=style)
    if loop["reason"]:
        _print_item("Why", loop["reason"])
    if loop["advice"]:
        _print_wrapped(f"Advice: {loop['advice']}.")
    looked = loop["checked_at"]
    if looked is None:
        _print_wrapped("The beat has not looked at it yet; `memgen status` says whether one runs.", style="yellow")
    elif _minutes_since(looked) > _STALE_MINUTES:
        text = f"The beat last looked {_ago(looked)}: nothing starts, and the state may be another by now. "
        _print_wrapped(f"{text}`memgen status` says whether it runs.", style="red")


def _print_waiting(loop: JsonObject) -> None:
    waiting, canary = loop["waiting"], loop["canary"]
    when = "as soon as enough is new"
    if loop["cron"]:
        when = f"{loop['cron']} ({loop['time_zone']})"
    elif loop["idle_hours"]:
        when = f"after {counted(loop['idle_hours'], 'quiet hour')}"
    _print_item("Records", loop["recording"])
    if loop["refused"]:
        _print_item("Not recorded", f"runs that teach nothing, the last for this: {loop['refused']}")
    if loop["judge"]:
        _print_item("Judge", loop["judge"])
    _print_item("Trains", f"{when}; {waiting['new']} of {waiting['enough']} new runs wait")
    beside = [
        f"{waiting['not_counted'][key]} {text.format(min_reward=waiting['min_reward'])}"
        for key, text in _NOT_COUNTED.items()
        if waiting["not_counted"][key]
    ]
    if beside:
        _print_item("Not counted", ", ".join(beside))
    if waiting["next_run"]:
        _print_item("Next time", moment_in(waiting["next_run"], loop["time_zone"] or "UTC"))
    if waiting["why_not"] and not loop["held"]:
        _print_item("Why not now", waiting["why_not"].partition("; not counted")[0])
    if waiting["last_skip"] and waiting["last_skip"] != waiting["why_not"]:
        _print_item("Last time", waiting["last_skip"])
    _print_item("Gate", loop["gate"])
    if loop["failures"]:
        _print_item("Failures", f"{loop['failures']} in a row; it holds at {loop['most_failures']}")
    if canary is not None:
        text = f"route {canary['route']} gives {loop['adapter']}@{canary['version']} {percent(canary['share'])} since "
        text += f"{moment(canary['since'])}: {counted(canary['answers'], 'answer')}, {canary['rewarded']} rewarded"
        if canary["sessions_needed"]:
            text += f"; about {canary['sessions_needed']} more to a result"
            if canary["days_needed"] is not None:
                text += f", {_days(canary['days_needed'])} at this pace"
        _print_item("Canary", text)


def _print_item(name: str, text: str) -> None:
    text = text.rstrip(".")
    _print_wrapped(f"{name}: {text}." if len(text) <= _LONGEST else f"{name}: {text[:_LONGEST]} ...")


def _print_wrapped(text: str, style: str = "") -> None:
    for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False):
        print_line(line, style=style)


def _days(days: float) -> str:
    return counted(round(24 * days), "hour") if days < 2 else f"{days:.0f} days"


def _minutes_since(iso: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds() / 60


def _ago(iso: str | None) -> str:
    if iso is None:
        return ""
    minutes = _minutes_since(iso)
    if minutes < 90:
        return f"{max(0, minutes):.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days ago"
