"""Model cards: valid for the hub's own library, and plain text wherever they quote somebody else."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from api.cli.model_card import CardFacts, check_card, write_card

HASH = "ab" * 32
EVIL = (
    "<img src=x onerror=alert(1)> [here](javascript:alert(1)) ![](https://tracker.example/x.png) `a` *b* | c\n# d\n---"
)


def _facts(text: str = "plain", **changes: Any) -> CardFacts:
    """Of a version from another installation, with `text` wherever its description may have any."""
    ancestor = {"number": 1, "task": "refunds", "dataset_hash": HASH, "artifact_hash": HASH, "code_version": text}
    description = {
        "adapter": "bot",
        "number": 1,
        "verdict": "passed",
        "reasons": [text],
        "base_model": "acme/tiny",
        "base_revision": text,
        "base_identity": {"chat_template": text},
        "artifact_hash": HASH,
        "lineage": [{**ancestor, "dataset": {"new": text, "replayed": [text]}}],
        "tasks": [{"name": "refunds", "description": text}],
        **changes,
    }
    scores = {"base": {}, "versions": {"1": {"refunds": {"score": 1.0}}}, "tasks": ["refunds"], "metrics": None}
    return CardFacts(
        description, {"flags": [text], "losses": []}, scores=scores, gate=None, base_model=text, licence="mit"
    )


def test_the_hubs_library_reads_it(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(write_card(_facts(EVIL)))
    card = ModelCard.load(tmp_path / "README.md")
    found = card.data.to_dict()
    assert (found["license"], found["library_name"], found["tags"]) == (
        "mit",
        "memgen",
        ["memgen", "continual-learning"],
    )
    assert found["memgen"]["base_revision"] == EVIL
    assert sorted(found) == [
        *("base_model", "base_model_relation", "library_name", "license", "memgen", "pipeline_tag", "tags"),
    ], "what is quoted makes no field of its own"
    assert check_card(tmp_path / "README.md", _facts(EVIL).description) == "mit"


def test_what_it_quotes_is_text(tmp_path: Path) -> None:
    plain, evil = (
        MarkdownIt("commonmark", {"html": True}).enable("table").parse(write_card(_facts(text)).split("---\n", 2)[2])
        for text in ("plain", EVIL)
    )
    kinds = [{(token.type, token.level) for token in tokens} for tokens in (plain, evil)]
    assert kinds[0] == kinds[1], "no heading, list, rule, code or HTML of its own"
    inside = [
        {child.type for token in tokens for child in token.children or ()} - {"softbreak"} for tokens in (plain, evil)
    ]
    assert inside[0] == inside[1]
    assert not {"image", "html_inline"} & inside[1]
    links = [child.attrGet("href") for token in evil for child in token.children or () if child.type == "link_open"]
    assert links == ["https://arxiv.org/abs/2509.24704"]


@pytest.mark.parametrize("dataset", [{}, {"new": 5, "replayed": {"a": 2, "b": 3}}, {"new": "x", "replayed": 3}])
def test_a_manifest_of_another_installation_leaves_numbers_out(dataset: dict[str, Any]) -> None:
    facts = _facts()
    [ancestor] = facts.description["lineage"]
    ancestor["dataset"] = dataset
    shown = "| 1 | refunds | 5 | 5 |" if dataset.get("new") == 5 else "| 1 | refunds |  |"
    assert shown in write_card(facts)
