"""Reader of a stream of bytes, plain or gzip, as trajectories of one format. Knows no row and no HTTP.

A broken line or document is refused by itself and never hinders the others. Memory stays bounded by the longest value,
and by what a format must hold to put together what is spread over a file.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import MAX_DEPTH, canonical_json
from registry.trajectories.draft import Draft, Sent
from registry.trajectories.file_kinds import is_enough, why_unreadable
from registry.trajectories.formats.formats import FORMATS, FormatReading, Splitter, TrajectoryFormat, other_format
from registry.trajectories.jsonl import JsonLine
from registry.trajectories.unpacking import Unpacker

_KEPT = "What was accepted is kept: send the whole file again, and only what is missing is added."


@dataclass(frozen=True)
class SizeLimits:
    trajectory_bytes: int
    """Longest single trajectory, as JSON."""
    document_bytes: int
    """Longest single document of a format whose documents may hold several trajectories."""

    def of_value(self, file_format: TrajectoryFormat) -> int:
        return max(self.document_bytes, self.trajectory_bytes) if file_format.documents else self.trajectory_bytes


class FileReader:
    """Takes chunks by `feed` and returns values as they become complete; `finish` returns the last ones.

    `stopped` says why reading ended early; what was returned before remains good.
    """

    def __init__(self, splitter: Splitter) -> None:
        self.stopped: str | None = None
        self.bytes_read = 0
        """Bytes so far, unpacked."""
        self._splitter = splitter
        self._unpacker = Unpacker()
        self._beginning: bytes | None = b""
        """What came before it is known whether the file can be read; None once it is known."""
        self._unreadable: str | None = None

    @property
    def number(self) -> int:
        """Lines or documents ended so far."""
        return self._splitter.number

    def feed(self, chunk: bytes) -> Iterator[JsonLine]:
        if self._unreadable is not None:
            return
        for piece in self._unpacker.feed(chunk):
            self.bytes_read += len(piece)
            yield from self._split(piece)
        self._note_stop()

    def finish(self) -> Iterator[JsonLine]:
        """What no end mark ended. A broken stream ends in a fragment, which is not returned."""
        for piece in self._unpacker.finish():
            yield from self._split(piece)
        yield from self._split(b"", at_end=True)
        self._note_stop()
        if self.stopped is None:
            yield from self._splitter.finish()
            if self._splitter.cut:
                self.stop("the list has no end: the file was cut short")

    def stop(self, reason: str) -> None:
        """Say that what follows won't be read."""
        self.stopped = f"{reason}; read up to {self._splitter.unit} {self.number}. {_KEPT}"

    def _split(self, piece: bytes, *, at_end: bool = False) -> Iterator[JsonLine]:
        """Lines that a piece completes; none of a file that is something else altogether."""
        if self._beginning is not None:
            piece = self._beginning + piece
            if not at_end and not is_enough(piece):
                self._beginning = piece
                return
            self._beginning = None
            self._unreadable = why_unreadable(piece)
            self.stopped = self._unreadable or self.stopped
        if self._unreadable is None:
            yield from self._splitter.feed(piece)

    def _note_stop(self) -> None:
        if self._unpacker.stopped is not None and self.stopped is None:
            self.stop(self._unpacker.stopped)


class TrajectoryFile:
    """A file that is being read: bytes in, drafts and refusals out."""

    def __init__(self, format_name: str, limits: SizeLimits) -> None:
        self._format = FORMATS[format_name]
        self._limits = limits
        self.reader = FileReader(self._format.split(limits.of_value(self._format)))
        self._reading = self._format.open()
        self._abandoned = False

    def feed(self, chunk: bytes) -> Iterator[Sent]:
        yield from self._read(self.reader.feed(chunk))

    def finish(self) -> Iterator[Sent]:
        yield from self._read(self.reader.finish())
        if not self._abandoned:
            yield from self._bounded(self._reading.finish())

    def abandon(self, reason: str) -> None:
        """Say that the rest will come another time: what only the end would tell is left for then."""
        self._abandoned = True
        self.reader.stop(reason)

    def _read(self, lines: Iterable[JsonLine]) -> Iterator[Sent]:
        for line in lines:
            yield from self._bounded(read_line(line, self._format, self._reading, self._limits))

    def _bounded(self, found: Iterable[Sent]) -> Iterable[Sent]:
        return check_sizes(found, self._limits) if self._format.documents else found


def read_line(
    line: JsonLine, file_format: TrajectoryFormat, reading: FormatReading, limits: SizeLimits
) -> Iterable[Sent]:
    """What one line or document holds; its refusal if it can't be read."""
    if line.data is None:
        setting = "MEMGEN_MAX_DOCUMENT_BYTES" if file_format.documents else "MEMGEN_MAX_TRAJECTORY_BYTES"
        limit = limits.of_value(file_format)
        return [
            (
                line.number,
                InvalidTrajectory("line_too_long", f"longer than {limit} bytes; the limit of one line ({setting})"),
            )
        ]
    data = line.data
    return _refused_here(line.number, lambda: _read_value(line.number, file_format.parse(data), file_format, reading))


def read_values(values: Iterable[tuple[int, object]], format_name: str, limits: SizeLimits) -> Iterator[Sent]:
    """Drafts and refusals of parsed values with their places."""
    file_format = FORMATS[format_name]
    reading = file_format.open()
    for number, value in values:
        yield from check_sizes(_refused_here(number, partial(_read_value, number, value, file_format, reading)), limits)
    yield from check_sizes(reading.finish(), limits)


def _read_value(number: int, value: object, file_format: TrajectoryFormat, reading: FormatReading) -> Iterable[Sent]:
    """As the reading; the refusal of a value of another format says which."""
    try:
        return list(reading.read(number, value))
    except InvalidTrajectory as refusal:
        other = other_format(value, file_format)
        if other is None:
            raise
        reason = f"has {FORMATS[other].mark!r} and no {file_format.mark!r}: it seems to be of the format {other!r}"
        raise InvalidTrajectory(refusal.code, f"{reason}; name that one") from refusal


def check_sizes(found: Iterable[Sent], limits: SizeLimits) -> Iterator[Sent]:
    """Refuse what is longer than one trajectory may be; a document may be longer."""
    for number, sent in found:
        if isinstance(sent, Draft) and len(canonical_json(sent.messages)) > limits.trajectory_bytes:
            sent = InvalidTrajectory(
                "trajectory_too_long",
                f"messages: longer than {limits.trajectory_bytes} bytes; the limit of one trajectory "
                "(MEMGEN_MAX_TRAJECTORY_BYTES)",
            )
        yield number, sent


def _refused_here(number: int, read: Callable[[], Iterable[Sent]]) -> Iterable[Sent]:
    try:
        return list(read())
    except InvalidTrajectory as refusal:
        return [(number, refusal)]
    except InvalidJson as error:
        return [(number, InvalidTrajectory(error.code, str(error)))]
    except RecursionError:  # parsed, and too deep for a reader that looks into it
        reason = f"nested more than {MAX_DEPTH} levels deep; expected a flatter value"
        return [(number, InvalidTrajectory("too_deep", reason))]
