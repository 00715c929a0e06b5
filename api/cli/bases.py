"""`memgen base`: whether a base can be worked with, and how it reads conversations. Needs no running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.invocation import CommandFailed, invocation
from api.cli.output import JsonOption, print_json, print_line, print_table

if TYPE_CHECKING:
    from registry.settings import Settings

app = typer.Typer(help="Bases: check one before you choose it.", no_args_is_help=True)

_CHECK_SECONDS = 600


@app.callback()
def bases() -> None:
    """Bases: check one before you choose it."""


@app.command(epilog="Example: `memgen base check Qwen/Qwen2.5-0.5B-Instruct`")
def check(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="Folder, a wheel's model, or hub id. Default: the base that is set.", show_default=False),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    template: Annotated[
        Path | None,
        typer.Option(help="Try this chat template with the model's tokenizer.", exists=True, dir_okay=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a base reads conversations: what its chat template writes, what is spelled, what ends an answer.

    Loads no weights. Ends with 1, and the reason, if the base can't be worked with.
    """
    from memgen.backbone.description import describe
    from memgen.backbone.loading import read_base
    from memgen.errors import ConfigError

    settings = invocation(context).settings()
    name = model or settings.base_model
    files = read_base(
        name,
        cache_dir=settings.models_dir.expanduser(),
        revision=revision or (settings.base_revision if model is None else "main"),
    )
    if template is not None:
        try:
            files = files.with_template(template.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{template} is not UTF-8 text: {error}") from error
    described = describe(files)
    if as_json:
        print_json(described)
        if not described["accepted"]:
            raise typer.Exit(1)
        return
    if not described["accepted"]:
        raise CommandFailed(f"{name} can't be worked with: {described['refused']}")
    _print_described(described)


def _print_described(described: dict[str, Any]) -> None:
    from memgen.text.profile_summary import in_words

    example = described["example"]
    print_line(f"{described['name']} can be worked with.", style="green")
    print_line("")
    rows = [
        ("revision", described["revision"]),
        *((part.replace("_", " "), digest) for part, digest in described["identity"].items()),
        ("longest context", f"{described['context_tokens']} tokens"),
    ]
    print_table(("", ""), rows)
    print_line("")
    print_table(("what", "how"), in_words(described["profile"]))
    print_line("")
    print_line("A conversation with a system message, a call and its result, as the model reads it:", style="bold")
    print_line(example["prompt"])
    print_line("The call as it is trained, and as the model is to write it:", style="bold")
    print_line(example["call"])
    print_line("The answer:", style="bold")
    print_line(example["answer"])


def refuse_at_start(settings: Settings) -> None:
    """Raise CommandFailed if the base that is set can't be worked with. The default one can.

    In a process of its own, because what starts a service should not hold torch in memory for as long as that runs.
    """
    from registry.settings import Settings, child_environment

    if settings.base_model == Settings.model_fields["base_model"].default:
        return
    code = "from api.cli.main import run; run()"
    done = subprocess.run(  # noqa: S603  # our own command, no shell
        [sys.executable, "-c", code, "base", "check", "--json"],
        env=child_environment(settings),
        capture_output=True,
        text=True,
        timeout=_CHECK_SECONDS,
        check=False,
    )
    if done.returncode != 1:
        return  # what else goes wrong here is not the base's fault, and shows in the log of what loads it
    try:
        reason = f"{settings.base_model} can't be worked with: {json.loads(done.stdout)['refused']}"
    except (ValueError, KeyError):
        reason = done.stderr.strip().rpartition("memgen: ")[2] or "it could not be checked"
    raise CommandFailed(f"The base is refused. {reason}")
