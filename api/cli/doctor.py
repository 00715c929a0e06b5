"""`memgen doctor`: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.invocation import CommandFailed, invocation
from api.cli.output import JsonOption, notes, print_json, print_line, print_table

if TYPE_CHECKING:
    from api.cli.diagnosis.findings import Check, Diagnosis, Installation

_GROUPS = ("machine", "model", "servers", "service")
"""The modules of checks, in the order of the report."""


def doctor(
    context: typer.Context,
    limit: Annotated[float, typer.Option(min=1, help="Seconds that a check may take.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with this installation, and how to mend it. Changes nothing, and shows no secret.

    Looks at Python, packages, torch, threads, disks, the servers, workers, beat and clock, the base, the API with its
    key, and at what a killed `memgen up` left. Works while everything is down. Ends with 1 if a check failed.
    """
    from api.cli.diagnosis.findings import fail

    try:
        installation = _installation(context)
    except CommandFailed as error:
        found = [fail("settings", str(error), "Mend that first: nothing else can be looked at")]
    else:
        found = _examine(installation, limit)
    failed = any(each.state == "fail" for each in found)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(each) for each in found]})
    else:
        _print(found)
    if failed:
        raise typer.Exit(1)


def _installation(context: typer.Context) -> Installation:
    from api.cli.diagnosis.findings import Installation

    called = invocation(context)
    return Installation(called.settings(), called.settings(service_env=False))


def _examine(installation: Installation, limit_seconds: float) -> list[Diagnosis]:
    from api.cli.diagnosis.running import run_checks
    from registry.logs import configure_logs

    # What the service's own code logs while it looks is in the report already.
    configure_logs(installation.settings.model_copy(update={"log_level": "error"}))
    console = notes()
    with console.status("Looking") if console.is_terminal else contextlib.nullcontext():
        checks, missing = _load_checks()
        return [*missing, *run_checks(checks, installation, limit_seconds=limit_seconds)]


def _load_checks() -> tuple[list[Check], list[Diagnosis]]:
    """The checks, and a line for each group of them whose code does not load here: that stops no other.

    They are loaded one after the other, because threads that import one package at once may see half of it.
    """
    from api.cli.diagnosis.findings import fail

    checks: list[Check] = []
    missing: list[Diagnosis] = []
    for name in _GROUPS:
        try:
            checks.extend(import_module(f"api.cli.diagnosis.{name}").CHECKS)
        except Exception as error:  # a package that is missing, or a shared library that does not load
            found = f"the checks of {name} do not load: {type(error).__name__}: {error}"
            missing.append(fail("packages", found, "`make setup` installs what is pinned"))
    return checks, missing


def _print(found: Sequence[Diagnosis]) -> None:
    print_table(("", "check", "found"), [(each.state, each.check, each.found) for each in found])
    if advised := [each for each in found if each.advice]:
        print_line("")
        for each in advised:
            print_line(f"{each.check}: {each.advice.rstrip('.')}.", style="red" if each.state == "fail" else "yellow")
