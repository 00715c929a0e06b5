"""`memgen up`, `down` and `status`: the stack on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.bases import refuse_at_start
from api.cli.invocation import invocation
from api.cli.output import JsonOption, notes, print_json, print_line, print_note, print_table, print_warning

if TYPE_CHECKING:
    from api.local.state import Event
    from registry.settings import Settings

_SHOWN = ("running", "external", "done", "restarting")


def up(
    context: typer.Context,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay here until Ctrl-C stops everything.")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = None,
    engine: Annotated[
        Literal["local", "vllm"] | None,
        typer.Option(help="What generates: the API's process, or a vLLM server beside it (make vllm)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the whole service on this machine: PostgreSQL, Valkey, S3, API, workers and beat.

    Returns once the API is ready. A service that runs already is left as it is. Servers that you name by
    MEMGEN_DATABASE_URL, MEMGEN_BROKER_URL, MEMGEN_S3_URL or, with --engine vllm, MEMGEN_VLLM_URL are used instead of
    local ones.
    """
    from api.cli.stack import SUPERVISOR, prepare
    from api.local import control
    from registry.upstreams import load_upstreams

    settings = invocation(context).settings(service_env=False, api_port=port, engine=engine)
    if not control.status(settings)["running"]:
        load_upstreams(settings)  # refused now, and not in the log of an API that can't start
        refuse_at_start(settings)
    at_ready = _at_ready(settings) if foreground and not as_json else None
    try:
        with _progress(at_ready) as on_event:
            result = control.up(settings, foreground=foreground, on_event=on_event, prepare=prepare, command=SUPERVISOR)
    except KeyboardInterrupt:  # in the foreground the supervisor answers Ctrl-C itself
        print_note("The service goes on starting. `memgen status` shows it, `memgen down` stops it.")
        raise typer.Exit(130) from None
    if as_json:
        print_json(asdict(result))
    elif foreground:
        print_line("Stopped.")
    else:
        how = "runs already" if result.already_running else f"is ready after {result.seconds:.0f} s"
        print_note(f"The service {how}.", style="green")
        _print_addresses(result.home, result.api_url, result.urls)
        for note in result.notes:
            print_warning(note)
        for name, reason in result.down.items():
            print_warning(f"{name} is down and tried again, see `memgen status`: {reason}")


def init(context: typer.Context, as_json: JsonOption = False) -> None:
    """Prepare servers that you run yourself: migrate the database, make the bucket, admit MEMGEN_API_KEY.

    For deployments without `memgen up`, which does this by itself. Harmless when repeated.
    """
    from api.cli.stack import prepare
    from registry.database import upgrade
    from registry.wiring import configured

    settings = invocation(context).settings(service_env=False)
    upgraded = upgrade(configured(settings.database_url, "MEMGEN_DATABASE_URL"))
    for note in upgraded:
        print_warning(note)
    prepare(settings)
    if as_json:
        print_json({"bucket": settings.s3_bucket, "base_model": settings.base_model, "notes": upgraded})
    else:
        print_line("The database is migrated, the bucket is there, and MEMGEN_API_KEY may do everything.")


def down(context: typer.Context, as_json: JsonOption = False) -> None:
    """Stop everything that `memgen up` started. Data stay."""
    from api.local import control

    settings = invocation(context).settings(service_env=False)
    console = notes()
    with console.status("Stopping") if console.is_terminal else contextlib.nullcontext():
        stopped = control.down(settings)
    if as_json:
        print_json({"stopped": stopped, "home": str(settings.home)})
    else:
        print_line("Stopped." if stopped else f"Nothing runs in {settings.home}.")


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what runs here: each process with its state, address and log."""
    from api.local import control

    found: dict[str, Any] = control.status(invocation(context).settings(service_env=False))
    if as_json:
        print_json(found)
        return
    print_line(f"{found['phase']} in {found['home']}" + (f": {found['error']}" if found["error"] else ""))
    if found["running"]:
        rows = [
            (p["name"], p["state"], p["pid"], _duration(p["uptime_seconds"]), p["restarts"], p["url"], p["log"])
            for p in found["processes"]
        ]
        print_table(("service", "state", "#pid", "#up", "#restarts", "url", "log"), rows)
        for process in found["processes"]:
            if process["down_since"] is not None:
                print_line("")
                print_line(_trouble(process))
    else:
        print_note("Start it with `memgen up`.")


def _trouble(process: Mapping[str, Any]) -> str:
    """Which process is down, since when, when it is tried next, and why."""
    times = "once" if process["failures"] == 1 else f"{process['failures']} times in a row"
    following = f"tried again at {process['next_try_at']}" if process["next_try_at"] else "being tried again now"
    return f"{process['name']} is down since {process['down_since']}, failed {times}, {following}. {process['reason']}"


@contextlib.contextmanager
def _progress(at_ready: Callable[[], None] | None) -> Iterator[Callable[[Event], None]]:
    """A spinner on stderr that says what is being waited for, and a line for each stage reached."""
    console = notes()
    spinner = console.status("Starting")
    if console.is_terminal:
        spinner.start()

    waiting: set[str] = set()

    def on_event(event: Event) -> None:
        if event.name == "stack":
            if event.state == "ready":
                spinner.stop()  # while it turns, stdout is its own
                if at_ready is not None:
                    at_ready()
        elif event.state in _SHOWN:
            waiting.discard(event.name)
            print_note(f"  {event.name}: {event.state}{f' ({event.detail})' if event.detail else ''}")
        else:
            waiting.add(event.name)
        if waiting:
            spinner.update(f"Waiting for {', '.join(sorted(waiting))}")

    try:
        yield on_event
    finally:
        spinner.stop()


def _at_ready(settings: Settings) -> Callable[[], None]:
    def show() -> None:
        from api.local import control

        found: dict[str, Any] = control.status(settings)
        urls = {each["name"]: each["url"] for each in found["processes"] if each["url"]}
        _print_addresses(Path(found["home"]), str(found["api_url"]), urls)
        print_note("Ctrl-C stops everything.")

    return show


def _print_addresses(home: Path, api_url: str, urls: Mapping[str, str]) -> None:
    print_table(("service", "url"), urls.items())
    env = home / "service.env"
    print_line("")
    print_line(f"API       {api_url}/v1, documented at {api_url}/docs")
    print_line(f"Dashboard {api_url}/ui, by the API key")
    print_line(f"API key   MEMGEN_API_KEY in {env}; `memgen` finds it there by itself")
    print_line(f"OpenAI    . {env}; export OPENAI_BASE_URL={api_url}/v1 OPENAI_API_KEY=$MEMGEN_API_KEY")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
