"""`memgen webhooks`: tell other programs what happens."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.completion import webhook_names
from api.cli.invocation import CommandFailed, connect
from api.cli.output import JsonOption, first_line, moment, print_json, print_line, print_note, print_table
from api.http.json_object import JsonObject

app = typer.Typer(help="Webhooks: tell other programs what happens.", no_args_is_help=True)

WebhookArgument = Annotated[
    str, typer.Argument(help="Name of the webhook.", show_default=False, autocompletion=webhook_names)
]
UrlOption = Annotated[str, typer.Option(help="Where each event is sent, by POST.", show_default=False)]
NewUrlOption = Annotated[str | None, typer.Option(help="Where each event is sent, by POST.")]
EventOption = Annotated[
    list[str] | None, typer.Option("--event", help="An event to send, such as job.failed; repeatable. Default: all.")
]

_LOOK_SECONDS = 0.5


@app.command(epilog="Example: `memgen webhooks create ops --url https://example.com/hook --event job.failed`")
def create(
    context: typer.Context,
    name: WebhookArgument,
    url: UrlOption,
    event: EventOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a webhook. Its secret, with which the receiver verifies signatures, is shown this once."""
    print_answer(context, as_json, lambda client: client.webhooks.create(name, url, events=event), _print_secret)


@app.command("list", epilog="Example: `memgen webhooks list`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all webhooks, with what waits for each and what was given up."""
    print_answer(context, as_json, lambda client: client.webhooks.list(), _print_list)


def _print_list(found: list[JsonObject]) -> None:
    rows = [
        (
            w["name"],
            w["url"],
            _events(w),
            _state(w),
            *(w["deliveries"][state] for state in ("pending", "delivered", "given_up")),
        )
        for w in found
    ]
    print_table(
        ("webhook", "url", "events", "state", "#pending", "#delivered", "#given up"),
        rows,
        empty="No webhook yet. Create one with `memgen webhooks create NAME --url URL`.",
    )


@app.command(epilog="Example: `memgen webhooks show ops`")
def show(context: typer.Context, name: WebhookArgument, as_json: JsonOption = False) -> None:
    """Show a webhook."""
    print_answer(context, as_json, lambda client: client.webhooks.get(name), _print)


@app.command(epilog="Example: `memgen webhooks change ops --disable`")
def change(
    context: typer.Context,
    name: WebhookArgument,
    url: NewUrlOption = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", help="Replaces all events; repeatable. `all` stands for all.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="While it is disabled, nothing new is queued for it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given. What waits is sent to the new URL."""
    events = None if not event else [] if event == ["all"] else event
    given = {"url": url, "events": events, "enabled": enabled}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if not options:
        raise CommandFailed("Nothing to change was given. `memgen webhooks change --help` lists what can be.")
    print_answer(context, as_json, lambda client: client.webhooks.change(name, **options), _print)


@app.command(epilog="Example: `memgen webhooks deliveries ops --state given_up`")
def deliveries(
    context: typer.Context,
    name: WebhookArgument,
    state: Annotated[str | None, typer.Option(help="Only those pending, delivered or given_up.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, the newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show what was sent and what came of it."""
    print_answer(
        context, as_json, lambda client: client.webhooks.deliveries(name, state=state, limit=limit), _print_deliveries
    )


def _print_deliveries(page: JsonObject) -> None:
    rows = [
        (
            d["id"],
            d["event"],
            moment(d["happened_at"]),
            d["state"],
            d["attempts"],
            moment(d["next_attempt_at"]),
            first_line(d["last_error"] or ""),
        )
        for d in page["data"]
    ]
    columns = ("delivery", "event", "happened", "state", "#attempts", "next", "error")
    print_table(columns, rows, empty="Nothing was sent yet.")


@app.command("test", epilog="Example: `memgen webhooks test ops`")
def send_test(
    context: typer.Context,
    name: WebhookArgument,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what comes of it.")] = 15.0,
    as_json: JsonOption = False,
) -> None:
    """Send an event `webhook.test`, and say what the receiver answered."""
    with connect(context) as client:
        delivery = client.webhooks.test(name)
        until = time.monotonic() + wait
        while delivery["attempts"] == 0 and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            delivery = client.webhooks.delivery(name, delivery["id"])
    if as_json:
        print_json(delivery)
    elif delivery["state"] == "delivered":
        print_line(f"{name} has it: it answered {delivery['last_status']}.", style="green")
    elif delivery["attempts"]:
        print_line(f"{name} has it not: {first_line(delivery['last_error'] or '')}. It is tried again.", style="yellow")
    else:
        print_line(f"It was not sent within {wait:g} s. `memgen webhooks deliveries {name}` shows when it is.")


@app.command(epilog="Example: `memgen webhooks redeliver ops 6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11`")
def redeliver(
    context: typer.Context,
    name: WebhookArgument,
    delivery: Annotated[str | None, typer.Argument(help="Id of the delivery.", show_default=False)] = None,
    given_up: Annotated[bool, typer.Option("--given-up", help="All that were given up.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send a delivery again, or all that were given up; the receiver sees the same message ids."""
    if given_up == (delivery is not None):
        raise typer.BadParameter("expected the id of a delivery, or --given-up")
    with connect(context) as client:
        if delivery is None:
            count = client.webhooks.redeliver_given_up(name)
            document: JsonObject = {"redelivered": count}
        else:
            document, count = client.webhooks.redeliver(name, delivery), 1
    if as_json:
        print_json(document)
    else:
        print_line(f"{count} {'delivery is' if count == 1 else 'deliveries are'} sent again.")


@app.command(epilog="Example: `memgen webhooks rotate ops --overlap-hours 48`")
def rotate(
    context: typer.Context,
    name: WebhookArgument,
    overlap_hours: Annotated[
        float, typer.Option(help="How long the former secret signs too; 0 ends it at once, as after a leak.")
    ] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Make a new secret, shown this once; for some hours requests are signed with both."""
    print_answer(
        context, as_json, lambda client: client.webhooks.rotate(name, overlap_hours=overlap_hours), _print_secret
    )


@app.command(epilog="Example: `memgen webhooks delete ops`")
def delete(context: typer.Context, name: WebhookArgument, as_json: JsonOption = False) -> None:
    """Delete a webhook with its deliveries, also those that wait."""
    print_answer(
        context,
        as_json,
        lambda client: client.webhooks.delete(name),
        lambda webhook: print_line(f"Webhook {name} is deleted."),
    )


def _print_secret(webhook: JsonObject) -> None:
    until = webhook["former_secret_until"]
    also = f" The former one signs too until {moment(until)}." if until else ""
    print_note(f"Webhook {webhook['name']} signs with this secret. Keep it now, it is not shown again.{also}")
    print_line(webhook["secret"])


def _print(webhook: JsonObject) -> None:
    print_line(f"{webhook['name']} sends {_events(webhook)} to {webhook['url']}.")
    if not webhook["enabled"]:
        print_line(f"It is disabled: {webhook['disabled_reason']}.", style="yellow")
    if webhook["failing_since"]:
        print_line(f"It has been failing since {moment(webhook['failing_since'])}.", style="yellow")
    if webhook["former_secret_until"]:
        print_line(f"The former secret signs too until {moment(webhook['former_secret_until'])}.")
    counts = webhook["deliveries"]
    print_line(f"Pending: {counts['pending']}, delivered: {counts['delivered']}, given up: {counts['given_up']}.")


def _events(webhook: JsonObject) -> str:
    return ", ".join(webhook["events"]) or "all events"


def _state(webhook: JsonObject) -> str:
    if not webhook["enabled"]:
        return "disabled"
    return "failing" if webhook["failing_since"] else "enabled"
