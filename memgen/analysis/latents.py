"""The latents that a version weaves while it answers its suites, as a folder that is written as they come.

latents.safetensors  `latents`, float32 (N, hidden), as `Decision.states` has them: last hidden states of the queries
                     (form `cache`), or input embeddings of the reasoner (form `embedding`)
latents.jsonl        line n tells of row n, the fields of `LatentPlace`
items.jsonl          an item a line: id, task, score, how it failed, insertions and latents; no text of anybody's
manifest.json        sha256 of every file above
"""

import json
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memgen.analysis.items import ReadAnalysisItem
from memgen.analysis.runs import AnalysisRun, Outcome, run_items
from memgen.checked_files import check_files, write_manifest
from memgen.errors import ArtifactCorrupt, ConfigError
from memgen.generation.requests import GenerationRequest
from memgen.memory.host import AdapterHost

_TENSORS, _PLACES, _ITEMS = "latents.safetensors", "latents.jsonl", "items.jsonl"
_NAME = "latents"
_MOST_HEADER_BYTES = 4096
Array = NDArray[np.float32]


@dataclass(frozen=True)
class LatentPlace:
    """Where a latent was woven, and what became of the answer."""

    item: str
    task: str
    position: int
    """Tokens of prompt and answer in front of the insertion."""
    insertion: int
    """Number of the insertion in its answer, from 0."""
    at_prompt_end: bool
    """Whether the prompt's queries wove it; if not, those of an insertion inside the answer."""
    latent: int
    """Number of the latent in its insertion, from 0."""
    right: bool


@dataclass(frozen=True)
class Latents:
    """The latents of one version, kept in their file and read from there."""

    states: Array
    """`(N, hidden)`."""
    places: tuple[LatentPlace, ...]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class CollectedTask:
    task: str
    items: int
    left_out: int
    right: int
    latents: int
    failures: dict[str, int]
    """Wrong answers by failure type."""


@dataclass(frozen=True)
class LatentCollection:
    latents: int
    hidden: int
    form: str
    """What the latents are: `cache` or `embedding`; both, if the version has memories of both; empty if it has none."""
    tasks: tuple[CollectedTask, ...]


def collect_latents(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[ReadAnalysisItem],
    folder: Path,
    *,
    run: AnalysisRun,
) -> LatentCollection:
    """Answer the items and write every latent that is woven into `folder`, which is made; a batch's are in memory at a
    time.

    Raises:
        ConfigError: as `run_items`.
        ModelError: what the memory weaves is no number.
        UnknownGrader, SandboxUnavailable: as `memgen.evaluation.accuracy.score_items`.
    """
    tallies: dict[str, _Tally] = {}
    folder.mkdir(parents=True, exist_ok=True)
    hidden = host.backbone.hidden_size
    with _writing(folder, hidden) as written:
        for some in run_items(host, memories, items, run, phase="collect", change=_with_latents):
            for outcome in some:
                written.add(outcome)
                tallies.setdefault(outcome.item.item.task, _Tally()).add(outcome)
    write_manifest(folder)
    tasks = tuple(tally.collected(task) for task, tally in tallies.items())
    forms = sorted({host.memories[name].config.form for name in memories if name is not None})
    return LatentCollection(written.count, hidden, " and ".join(forms), tasks)


def open_latents(folder: Path) -> Latents:
    """The latents of a folder.

    Raises:
        ArtifactMissing: a file is not there.
        ArtifactCorrupt: a file is not as it was written, or the folder holds something else.
    """
    check_files(folder)
    path = folder / _TENSORS
    with path.open("rb") as file:
        start, shape = _read_header(path, file)
    # An empty file region can't be mapped.
    states = np.memmap(path, "<f4", "r", start, shape) if shape[0] else np.zeros(shape, np.float32)
    with (folder / _PLACES).open("rb") as lines:
        places = tuple(LatentPlace(**json.loads(line)) for line in lines)
    if len(places) != shape[0]:
        raise ArtifactCorrupt(f"{folder}: {shape[0]} latents, but {_PLACES} tells of {len(places)}")
    return Latents(states, places)


def latents_of(states: Array, places: Sequence[LatentPlace]) -> Latents:
    """Latents that stand in no folder.

    Raises:
        ConfigError: not as many places as latents.
    """
    if states.ndim != 2 or len(states) != len(places):
        raise ConfigError(f"got latents {states.shape} and {len(places)} places; expected as many rows as places")
    return Latents(np.ascontiguousarray(states, np.float32), tuple(places))


def _with_latents(_: int, request: GenerationRequest) -> GenerationRequest:
    return replace(request, return_latents=True)


class _Writer:
    """Appends to the three files."""

    def __init__(self, states: IO[bytes], places: IO[str], items: IO[str]) -> None:
        self._states, self._places, self._items = states, places, items
        self.count = 0

    def add(self, outcome: Outcome) -> None:
        item = outcome.item.item
        for place, states in _places_of(outcome):
            self._states.write(states.astype("<f4").tobytes())
            self._places.write(_line(asdict(place)))
            self.count += 1
        self._items.write(
            _line(
                {
                    "item": item.item_id,
                    "task": item.task,
                    "score": outcome.score.score,
                    "right": outcome.right,
                    "failure": outcome.failure,
                    "insertions": outcome.insertions,
                    "latents": outcome.woven,
                    "left_out": outcome.score.left_out,
                }
            )
        )


@contextmanager
def _writing(folder: Path, hidden: int) -> Iterator[_Writer]:
    """The header of a tensors' file says how many rows there are, so they wait in a file of their own until all are
    there. What stood under the names is written over."""
    waiting = folder / f"{_TENSORS}.part"
    with ExitStack() as files:
        states = files.enter_context(waiting.open("wb"))
        places, items = (files.enter_context((folder / name).open("w", encoding="utf-8")) for name in (_PLACES, _ITEMS))
        written = _Writer(states, places, items)
        yield written
    with waiting.open("rb") as source, (folder / _TENSORS).open("wb") as target:
        target.write(_header((written.count, hidden)))
        shutil.copyfileobj(source, target)
    waiting.unlink()


def _places_of(outcome: Outcome) -> Iterator[tuple[LatentPlace, Array]]:
    item, number = outcome.item.item, 0
    for point, decision in enumerate(outcome.decisions):
        if decision.states is not None:
            for latent, state in enumerate(decision.states.float().cpu().numpy()):
                yield (
                    LatentPlace(item.item_id, item.task, decision.position, number, point == 0, latent, outcome.right),
                    state,
                )
        number += decision.invoked


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _header(shape: tuple[int, int]) -> bytes:
    """The beginning of a safetensors file: the library's writer takes whole tensors only."""
    described = {_NAME: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * shape[0] * shape[1]]}}
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _read_header(path: Path, file: IO[bytes]) -> tuple[int, tuple[int, int]]:
    """Where the tensor's bytes begin, and its shape."""
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        described = json.loads(file.read(min(length, _MOST_HEADER_BYTES)))[_NAME]
        rows, hidden = described["shape"]
        if described["dtype"] == "F32" and path.stat().st_size == 8 + length + 4 * rows * hidden:
            return 8 + length, (rows, hidden)
    except (struct.error, ValueError, KeyError, TypeError):
        pass
    raise ArtifactCorrupt(f"{path}: not the latents of an analysis; expected `{_NAME}`, float32 (N, hidden)")


class _Tally:
    """Counts of one task."""

    def __init__(self) -> None:
        self._items = self._left_out = self._right = self._latents = 0
        self._failures: dict[str, int] = {}

    def add(self, outcome: Outcome) -> None:
        self._items += 1
        self._left_out += not outcome.judged
        self._right += outcome.right
        self._latents += outcome.woven
        if outcome.failure is not None:
            self._failures[outcome.failure.value] = self._failures.get(outcome.failure.value, 0) + 1

    def collected(self, task: str) -> CollectedTask:
        return CollectedTask(task, self._items, self._left_out, self._right, self._latents, self._failures)
