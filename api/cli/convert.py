"""`memgen convert`: trajectories of a foreign format as JSONL of the format `chat`, without a service."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from api.cli.invocation import CommandFailed
from api.cli.output import JsonOption, print_json, print_note, print_warning
from api.http.json_object import JsonObject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from registry.trajectories.draft import Draft, Sent
    from registry.trajectories.files import TrajectoryFile

_BLOCK_BYTES = 65_536
_SHOWN_REFUSALS = 10
_LISTED_REFUSALS = 10_000
_PIPE = Path("-")


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", show_default=False, help="The file, plain or gzip; `-` for stdin.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", show_default=False, help="JSONL of the format `chat`; `-` for stdout.")
    ],
    format_name: Annotated[
        str,
        typer.Option("--from", show_default=False, help="Format of the file: atif, chat, hf-tools, otlp, sharegpt."),
    ],
    task: Annotated[str | None, typer.Option(help="Task to write into the trajectories that name none.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 1 if anything was refused.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a file of trajectories to what `memgen upload` takes. No service is needed.

    What can't be converted is refused by its line, and the report says which and why; docs/formats.md shows
    what becomes what. The length for the base model is checked when the file is uploaded, not here.
    """
    if as_json and target == _PIPE:
        raise CommandFailed("--json writes its report to stdout; name a file as OUT.")
    if source.exists() and target.exists() and source.samefile(target):
        raise CommandFailed(f"{target} is the same file as {source}, and writing it would empty it; name another OUT.")
    refusals: list[JsonObject] = []
    counts: Counter[str] = Counter()
    with _naming(target), ExitStack() as opened:
        file, read = _open_source(opened, source, format_name)
        out = _open_target(opened, target)
        for number, sent in read:
            if isinstance(sent, Exception):
                code = getattr(sent, "code", "")
                counts[code] += 1
                if len(refusals) < _LISTED_REFUSALS:
                    refusals.append({"line": number, "code": code, "reason": str(sent)})
            else:
                counts["written"] += 1
                out.write(_line(sent, task))
    written = counts.pop("written", 0)
    report = {
        "written": written,
        "refused": counts.total(),
        "complete": file.reader.stopped is None,
        "stopped": file.reader.stopped,
        "lines_read": file.reader.number,
        "refused_by_code": dict(sorted(counts.items())),
        "lines": refusals,
    }
    _print(report, source, as_json=as_json)
    if file.reader.stopped is not None:
        raise CommandFailed(f"{source} was not read to its end: {file.reader.stopped}")
    if strict and report["refused"]:
        raise CommandFailed(f"{report['refused']} of {source} were refused; all others are in {target}.")


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Have a fault of writing name the file, which the system does not."""
    try:
        yield
    except OSError as error:
        if target != _PIPE and error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


def _open_source(opened: ExitStack, source: Path, format_name: str) -> tuple[TrajectoryFile, Iterator[Sent]]:
    from registry.errors import Invalid
    from registry.settings import Settings
    from registry.trajectories.files import SizeLimits, TrajectoryFile
    from registry.trajectories.formats.formats import check_format

    try:
        name = check_format(format_name)
    except Invalid as error:
        raise CommandFailed(str(error)) from error
    limits = SizeLimits(
        *(Settings.model_fields[name].get_default() for name in ("max_trajectory_bytes", "max_document_bytes"))
    )
    file = TrajectoryFile(name, limits)
    stream = _stdin() if source == _PIPE else opened.enter_context(source.open("rb"))
    return file, _read(file, iter(lambda: stream.read(_BLOCK_BYTES), b""))


def _open_target(opened: ExitStack, target: Path) -> BinaryIO:
    if target == _PIPE:
        return typer.get_binary_stream("stdout")
    return opened.enter_context(target.open("wb"))


def _stdin() -> BinaryIO:
    return typer.get_binary_stream("stdin")


def _read(file: TrajectoryFile, blocks: Iterable[bytes]) -> Iterator[Sent]:
    for block in blocks:
        yield from file.feed(block)
    yield from file.finish()


def _line(draft: Draft, task: str | None) -> bytes:
    from registry.trajectories.formats import chat

    item = chat.write(draft)
    if task is not None:
        item.setdefault("task", task)
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"


def _print(report: JsonObject, source: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    refusals = report["lines"]
    print_note(f"{source}: {report['written']} written, {report['refused']} refused.")
    if refusals:
        # On stderr, with everything else for people: stdout may be the file.
        for each in refusals[:_SHOWN_REFUSALS]:
            print_warning(f"{each['line']}: {each['code']}: {each['reason']}")
        if (more := report["refused"] - len(refusals[:_SHOWN_REFUSALS])) > 0:
            print_warning(f"and {more} more; --json lists them")
