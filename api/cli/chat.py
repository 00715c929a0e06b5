"""`memgen chat`: one answer, or a conversation line by line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.invocation import connect
from api.cli.output import Json, print_json, print_line, print_note

if TYPE_CHECKING:
    from api.client import JsonObject


def chat(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="base, ADAPTER, ADAPTER@ALIAS or ADAPTER@7.", show_default=False)],
    prompt: Annotated[str | None, typer.Argument(help="Without it, lines of stdin.", show_default=False)] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer; the service's default if not given.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a model. Without PROMPT each line of stdin is a question in one conversation; Ctrl-D ends it.

    Answers go to stdout; which version answered, and where memory was woven, goes to stderr.
    """
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options = {name: value for name, value in options.items() if value is not None}
    messages: list[JsonObject] = [] if system is None else [{"role": "system", "content": system}]
    completions = []
    with connect(context) as client:
        for question in _questions(prompt):
            messages.append({"role": "user", "content": question})
            completion = client.chat(model, messages, **options)
            answer = completion["choices"][0]["message"]["content"] or ""
            messages.append({"role": "assistant", "content": answer})
            completions.append(completion)
            if not as_json:
                print_line(answer)
                print_note(_stamp(completion))
    if as_json:
        print_json(completions[0] if prompt is not None else {"data": completions, "messages": messages})


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
    stamp, usage = completion["memgen"], completion["usage"]
    woven = stamp["insertions"]
    latents = f"{sum(i['latents'] for i in woven)} latents woven in" if woven else "no memory woven in"
    return f"[{completion['model']}; {latents}; {usage['completion_tokens']} tokens in {stamp['seconds']:.1f} s]"
