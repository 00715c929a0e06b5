"""A memory per task, routed by input: what an artifact of such a memory holds beside its own files.

    router.safetensors   the region of every task's prompts (`memgen.routing.router`)
    isolated.json        the task of this artifact's own memory, and the artifacts, by manifest hash, of all others

A version of this kind is one new memory; those of the other tasks are the very bytes of earlier artifacts, named and
not copied, so no training can make them forget. A prompt that fits no task is answered by the bare base.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import TokenIds
from memgen.backbone.states import prompt_states
from memgen.errors import ArtifactCorrupt, ArtifactMismatch
from memgen.routing.router import Router

FORMAT = 1
_DESCRIPTION = "isolated.json"
_ROUTER = "router.safetensors"


class PromptedTurn(Protocol):
    """What a router learns from one supervised turn: `memgen.training.examples.Example` is one."""

    @property
    def prompt_ids(self) -> TokenIds:
        """What the base reads in front of the answer."""
        ...

    @property
    def trajectory(self) -> int | None:
        """Which conversation it is of, equal numbers being one; None if it stands alone."""
        ...


@dataclass(frozen=True)
class Isolated:
    """The tasks of one version, and the memory of each."""

    task: str
    """Task of the artifact's own memory."""
    others: Mapping[str, str]
    """By task, the sha256 of the manifest of its memory's artifact."""
    router: Router

    def save(self, folder: Path) -> None:
        """Write both files into an artifact's folder, before its manifest is."""
        folder.mkdir(parents=True, exist_ok=True)
        self.router.save(folder / _ROUTER)
        description = {"format": FORMAT, "task": self.task, "others": dict(self.others)}
        (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path, backbone: Backbone) -> Self | None:
        """Read it from an artifact whose files were checked; None if the artifact's memory is for all tasks.

        Raises:
            ArtifactCorrupt, ArtifactMissing, ArtifactMismatch: one of the files is not what it should be.
        """
        path = folder / _DESCRIPTION
        if not path.is_file():
            return None
        try:
            description = json.loads(path.read_text())
            found = description["format"]
            task, others = str(description["task"]), dict(description["others"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactCorrupt(f"{path} does not describe memories by task: {error!r}") from error
        if found != FORMAT:
            raise ArtifactMismatch(f"{path}: format is {found!r}; this version reads {FORMAT}")
        return cls(task, others, Router.load(folder / _ROUTER, backbone))

    def choose(self, states: Tensor) -> list[str | None]:
        """The task whose memory answers each prompt with states `(N, H)`; None is the bare base."""
        return [route.task for route in self.router.route(states)]


def region_prompts(examples: Sequence[PromptedTurn]) -> list[TokenIds]:
    """Prompts to learn a task's region from: one a conversation, and not always the same turn of it; no prompt twice.

    Of conversations with turns `[a, b]`, `[c, d]` and `[e]` they are `a`, `d` and `e`.
    """
    conversations: dict[object, list[TokenIds]] = {}
    for number, example in enumerate(examples):
        source = ("alone", number) if example.trajectory is None else example.trajectory
        conversations.setdefault(source, []).append(example.prompt_ids)
    chosen = (turns[place % len(turns)] for place, turns in enumerate(conversations.values()))
    return list(dict.fromkeys(chosen))


def with_task(
    parent: Isolated | None, parent_hash: str | None, backbone: Backbone, task: str, examples: Sequence[PromptedTurn]
) -> Isolated:
    """What a version with a new memory for `task` holds, beside what its parent (None: nothing) has for the others.

    Args:
        parent_hash: manifest hash of the parent's own artifact.

    Raises:
        ConfigError: the task has too few different prompts to know them by.
    """
    router = parent.router if parent else Router(backbone.revision, backbone.hidden_size)
    others = dict(parent.others) if parent else {}
    if parent is not None and parent_hash is not None:
        others[parent.task] = parent_hash
    others.pop(task, None)
    states = prompt_states(backbone, region_prompts(examples))
    return Isolated(task, others, router.with_task(task, states))
