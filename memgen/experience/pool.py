"""Past experience as text: trajectories, and insights distilled from them.

The external memory of ExpeL (Zhao et al., arXiv 2308.10144): its experience pool and its list of insights. A pool is
an immutable value; a changed pool is a new one. On disk it is a folder, checked in every byte, never pickled:

entries.json           trajectories and insights
states.safetensors     a hidden state for each entry, if the pool has states
manifest.json          sha256 of both
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.checked_files import check_files, read_tensors, write_manifest
from memgen.config_mapping import check_type, require
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ConfigError
from memgen.text.answers import ChatMessage, message_calls, message_text
from memgen.text.calls import call_text
from memgen.text.history import unified_messages

FORMAT = 1


@dataclass(frozen=True)
class PastTrajectory:
    """One rollout as text."""

    entry_id: str
    task: str
    prompt: str
    """The question, without what every prompt of the task shares."""
    answer: str
    """The answer; of several turns, all of them."""
    reward: float

    @property
    def searched_text(self) -> str:
        """The prompt alone: an answer's words would favour long answers."""
        return self.prompt

    @property
    def prompts(self) -> tuple[str, ...]:
        """Prompts whose answers this entry contains."""
        return (self.prompt,)


@dataclass(frozen=True)
class Insight:
    """A short text that says what to do, or what not to do."""

    entry_id: str
    task: str
    text: str
    prompts: tuple[str, ...] = ()
    """Prompts of the trajectories it was distilled from, whose answers it may show. If empty, somebody wrote it."""
    sources: tuple[str, ...] = ()
    """Ids of these trajectories, the failed ones too."""

    @property
    def searched_text(self) -> str:
        return self.text


Entry = PastTrajectory | Insight


def merged_insights(insights: Iterable[Insight]) -> tuple[Insight, ...]:
    """One of each id, with the prompts and sources of all.

    Those that somebody wrote come first, then those that were distilled from most prompts; of equals the first met.
    """
    alike: dict[str, list[Insight]] = {}
    for insight in insights:
        alike.setdefault(insight.entry_id, []).append(insight)
    merged = [
        replace(
            found[0],
            prompts=tuple(dict.fromkeys(prompt for one in found for prompt in one.prompts)),
            sources=tuple(dict.fromkeys(source for one in found for source in one.sources)),
        )
        for found in alike.values()
    ]
    return tuple(sorted(merged, key=lambda insight: (bool(insight.prompts), -len(insight.prompts))))


def past_trajectory(entry_id: str, task: str, messages: Sequence[ChatMessage], reward: float) -> PastTrajectory:
    """A conversation as an entry.

    Its prompt is `question_of` them. Its answer is all that follows: the assistant's turns with their tool calls, and
    between them, behind `Q:` and `A:`, the environment's messages.
    """
    start = _first_answer(messages)
    following = unified_messages(messages[start:])
    turns = [(message["role"] == "assistant", _full_text(message)) for message in following]
    text = "\n".join(f"{'A' if answers else 'Q'}: {content}" for answers, content in turns)
    return PastTrajectory(entry_id, task, question_of(messages), text.removeprefix("A: "), reward)


def question_of(messages: Sequence[ChatMessage]) -> str:
    """The user's messages in front of the first assistant turn. System messages are a task's, not a prompt's."""
    return "\n".join(message_text(m) for m in messages[: _first_answer(messages)] if m["role"] == "user")


def _first_answer(messages: Sequence[ChatMessage]) -> int:
    return next((n for n, message in enumerate(messages) if message["role"] == "assistant"), len(messages))


def _full_text(message: ChatMessage) -> str:
    calls = [call_text(call["name"], call["arguments"]) for call in message_calls(message)]
    return "\n".join(part for part in (message_text(message), *calls) if part)


@dataclass(frozen=True, eq=False)
class EntryStates:
    """Hidden states of a base that has read the entries' searched texts."""

    vectors: Tensor
    """`(N, H)` float32, in the order of `Experience.entries`."""
    kind: str
    """`mean` or `last`, as `memgen.backbone.states.text_states` computes them."""
    base_revision: str


@dataclass(frozen=True, eq=False)
class Experience:
    """A pool of entries with different ids.

    Raises:
        ConfigError: two entries have one id, or the states are not one for each entry.
    """

    trajectories: tuple[PastTrajectory, ...] = ()
    insights: tuple[Insight, ...] = ()
    """The most important first."""
    states: EntryStates | None = None

    def __post_init__(self) -> None:
        ids = [entry.entry_id for entry in self.entries]
        twice = sorted(entry_id for entry_id, count in Counter(ids).items() if count > 1)
        if twice:
            raise ConfigError(f"entry ids {twice[:3]} stand for more than one entry each; give every entry its own")
        if self.states is not None and len(self.states.vectors) != len(ids):
            raise ConfigError(f"{len(self.states.vectors)} states for {len(ids)} entries; compute the states anew")

    @property
    def entries(self) -> tuple[Entry, ...]:
        return (*self.trajectories, *self.insights)

    def with_entries(self, trajectories: Sequence[PastTrajectory] = (), insights: Sequence[Insight] = ()) -> Self:
        """A pool that holds these too; its states are to be computed anew."""
        return replace(
            self,
            trajectories=(*self.trajectories, *trajectories),
            insights=(*self.insights, *insights),
            states=None,
        )

    def save(self, folder: Path) -> str:
        """Write the pool into an empty `folder`; returns the sha256 of its manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        described: dict[str, Any] = {
            "format": FORMAT,
            "trajectories": [asdict(entry) for entry in self.trajectories],
            "insights": [asdict(entry) for entry in self.insights],
            "states": None,
        }
        if self.states is not None:
            described["states"] = {"kind": self.states.kind, "base_revision": self.states.base_revision}
            save_file({"states": self.states.vectors.contiguous()}, folder / "states.safetensors")
        (folder / "entries.json").write_text(json.dumps(described, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        return write_manifest(folder)

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None = None, *, manifest_sha256: str | None = None) -> Self:
        """Read a saved pool.

        Args:
            backbone: the base whose states the pool must have; None leaves saved states unchecked.

        Raises:
            ArtifactMissing: a file is not there.
            ArtifactCorrupt: a file differs from the manifest, or the manifest from `manifest_sha256`, or the files are
                not a pool's.
            ArtifactMismatch: another format, or states of another base.
        """
        check_files(folder, manifest_sha256)
        path = folder / "entries.json"
        try:
            described = json.loads(path.read_text())
            if described["format"] != FORMAT:
                raise ArtifactMismatch(f"{path}: format is {described['format']!r}; this version reads {FORMAT}")
            trajectories = tuple(PastTrajectory(**_checked(PastTrajectory, each)) for each in described["trajectories"])
            insights = tuple(Insight(**_checked(Insight, each)) for each in described["insights"])
            states = None
            if described["states"] is not None:
                vectors = read_tensors(folder / "states.safetensors")["states"].to(torch.float32)
                require(vectors.ndim == 2 and bool(vectors.isfinite().all()), "the states are no finite (N, H)")
                states = EntryStates(vectors, **described["states"])
            pool = cls(trajectories, insights, states)
        except (ConfigError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            raise ArtifactCorrupt(f"{folder} does not hold a pool: {error!r}. Save it again.") from error
        if backbone is not None and states is not None and states.base_revision != backbone.revision:
            raise ArtifactMismatch(
                f"{folder}: the states are of base {states.base_revision!r}, but the loaded base {backbone.name!r} is "
                f"{backbone.revision!r}; compute the states anew"
            )
        return pool


def _checked(kind: type[Entry], values: dict[str, Any]) -> dict[str, Any]:
    """Fields of an entry as JSON has them, with tuples for lists. Raises ConfigError where one is of another type."""
    for field in fields(kind):
        if field.name in values:
            check_type(field.name, field.type, values[field.name])
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
