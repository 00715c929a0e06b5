"""`memgen chat`: one answer, or a conversation line by line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.invocation import connect
from api.cli.output import JsonOption, print_json, print_note, print_piece
from api.http.json_object import JsonObject
from registry.wording import counted

if TYPE_CHECKING:
    from memgen_client import JsonClient


def chat(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="base, ADAPTER, ADAPTER@ALIAS, ADAPTER@7 or UPSTREAM/MODEL.", show_default=False)
    ],
    prompt: Annotated[str | None, typer.Argument(help="Without it, lines of stdin.", show_default=False)] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer; the service's default if not given.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable; in bfloat16 mostly.")] = None,
    session: Annotated[str | None, typer.Option(help="Its requests get one version of the adapter's route.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a model. Without PROMPT each line of stdin is a question in one conversation; Ctrl-D ends it.

    Answers go to stdout as they are written; which version answered, and where memory was woven, goes to stderr.
    """
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options["metadata"] = {"session_id": session} if session else None
    options = {name: value for name, value in options.items() if value is not None}
    messages: list[JsonObject] = [] if system is None else [{"role": "system", "content": system}]
    completions = []
    with connect(context) as client:
        for question in _questions(prompt):
            messages.append({"role": "user", "content": question})
            if as_json:
                completions.append(client.chat.create(model, messages, **options))
                answer = completions[-1]["choices"][0]["message"]["content"] or ""
            else:
                answer = _print_answer(client, model, messages, options)
            messages.append({"role": "assistant", "content": answer})
    if as_json:
        print_json(completions[0] if prompt is not None else {"data": completions, "messages": messages})


def _print_answer(client: JsonClient, model: str, messages: list[JsonObject], options: JsonObject) -> str:
    """Print an answer as it is written, then its stamp; return its text."""
    pieces: list[str] = []
    completion: JsonObject = {}
    try:
        for chunk in client.chat.stream(model, messages, **options):
            completion |= {name: value for name, value in chunk.items() if value}
            for choice in chunk["choices"]:
                pieces.append(choice["delta"].get("content") or "")
                print_piece(pieces[-1])
    finally:
        if completion:  # also where an answer breaks off, what follows begins its own line
            print_piece("\n")
    print_note(_stamp(completion))
    return "".join(pieces)


def _questions(prompt: str | None) -> Iterator[str]:
    if prompt is not None:
        yield prompt
        return
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if question := line.strip():
            yield question


def _stamp(completion: JsonObject) -> str:
    stamp, usage = completion.get("memgen"), completion.get("usage")
    if stamp is None or usage is None:  # an upstream's, which is passed through as it is
        tokens = f"; {counted(usage['completion_tokens'], 'token')}" if usage else ""
        return f"[{completion.get('model')}, an upstream's{tokens}]"
    woven = stamp["insertions"]
    latents = f"{counted(sum(i['latents'] for i in woven), 'latent')} woven in" if woven else "no memory woven in"
    tokens = counted(usage["completion_tokens"], "token")
    return f"[{completion['model']}; {latents}; {tokens} in {stamp['seconds']:.1f} s]"
