"""What a base is beside its weights: any edit of what its texts become is another identity, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memgen.backbone.identity import BaseIdentity
from memgen.backbone.loading import find_identity, find_revision, load_backbone
from memgen.errors import ModelNotFound


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def _json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        changed = change(before)
        path.write_text(json.dumps(before if changed is None else changed))

    return edit


def _template(change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        path.write_bytes(change(path.read_text()).encode())

    return edit


def _without(mapping: dict[str, Any], name: str) -> None:
    del mapping[name]


def _swap(tokenizer: Any) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def _merge(tokenizer: Any) -> None:
    tokenizer["model"]["vocab"]["ab"] = 259
    tokenizer["model"]["merges"] = [["a", "b"]]


TRUNCATION = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
EDITS = [
    ("chat_template", _template(lambda text: text.replace("assistant", "model"))),
    ("chat_template", _template(lambda text: " " + text)),
    ("chat_template", lambda folder: (folder / "chat_template.jinja").unlink()),
    ("tokenizer", _json("tokenizer.json", _swap)),
    ("tokenizer", _json("tokenizer.json", _merge)),
    ("tokenizer", _json("tokenizer.json", lambda t: t.update(normalizer={"type": "Lowercase"}))),
    ("tokenizer", _json("tokenizer.json", lambda t: t["pre_tokenizer"].update(add_prefix_space=True))),
    ("tokenizer", _json("tokenizer.json", lambda t: t["added_tokens"][1].update(special=False))),
    ("tokenizer", _json("tokenizer_config.json", lambda t: t.update(eos_token="<|im_start|>"))),
    ("tokenizer", _json("tokenizer_config.json", lambda t: t.update(bos_token="<|im_start|>"))),
    ("tokenizer", _json("special_tokens_map.json", lambda t: t.update(pad_token="<unk>"))),
    ("tokenizer", _json("added_tokens.json", lambda t: t.update({"<|call|>": 259}))),
    ("generation_config", _json("generation_config.json", lambda g: g.update(eos_token_id=[2, 1]))),
    ("generation_config", _json("generation_config.json", lambda g: g.update(temperature=0.6, do_sample=True))),
]


@pytest.mark.parametrize(("part", "edit"), EDITS)
def test_an_edited_file_is_another_identity_in_its_part_alone(
    tiny_base: Path, folder: Path, part: str, edit: Callable[[Path], None]
) -> None:
    before = find_identity(str(tiny_base), cache_dir=folder.parent)
    edit(folder)
    after = find_identity(str(folder), cache_dir=folder.parent)
    differs = {name for name, value in after.to_mapping().items() if value != before.to_mapping()[name]}
    assert differs == {part}
    assert find_revision(str(folder), cache_dir=folder.parent) == find_revision(str(tiny_base), cache_dir=folder.parent)


@pytest.mark.parametrize(
    "edit",
    [
        _json("tokenizer.json", lambda t: dict(reversed(t.items()))),
        _json("tokenizer.json", lambda t: _without(t["model"], "ignore_merges")),
        _json(
            "tokenizer.json",
            lambda t: t.update(truncation=TRUNCATION),
        ),
        _json("generation_config.json", lambda g: dict(reversed({**g, "transformers_version": "4.0.1"}.items()))),
        _json("generation_config.json", lambda g: {**g, "eos_token_id": [2], "top_k": None}),
        # A copy that was never saved by transformers has no such file; the model's config says the same.
        lambda folder: (folder / "generation_config.json").unlink(),
        _template(lambda text: text + "\n"),
        lambda folder: _move_template(folder),
    ],
)
def test_how_the_files_are_written_makes_no_difference(
    tiny_base: Path, folder: Path, edit: Callable[[Path], None]
) -> None:
    edit(folder)
    same = find_identity(str(folder), cache_dir=folder.parent)
    assert same == find_identity(str(tiny_base), cache_dir=folder.parent)


def _move_template(folder: Path) -> None:
    """Where older releases of transformers kept it."""
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": text}))


def test_what_is_loaded_has_the_identity_that_was_found_without_weights(tiny_base: Path, folder: Path) -> None:
    loaded = load_backbone(str(tiny_base), cache_dir=folder.parent)
    loaded.tokenizer(["a", "longer"], padding=True, truncation=True, max_length=2)
    assert loaded.identity == find_identity(str(folder), cache_dir=folder.parent)


def test_an_edit_is_seen_in_the_same_process(folder: Path) -> None:
    before = find_identity(str(folder), cache_dir=folder.parent), find_revision(str(folder), cache_dir=folder.parent)
    _template(lambda text: text.replace("user", "human") + "{# #}")(folder)
    _json("config.json", lambda config: config.update(rope_theta=5.0))(folder)
    after = find_identity(str(folder), cache_dir=folder.parent), find_revision(str(folder), cache_dir=folder.parent)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("text", ['{"eos_token_id": [2', "[]"])
def test_a_generation_config_that_cannot_be_read_is_named(folder: Path, text: str) -> None:
    """transformers goes on without it."""
    (folder / "generation_config.json").write_text(text)
    for find in (find_identity, load_backbone):
        with pytest.raises(ModelNotFound, match=r"generation_config\.json is not"):
            find(str(folder), cache_dir=folder.parent)


def test_what_differs_is_said_in_words() -> None:
    one = BaseIdentity("a", "b", "c")
    assert one.changed_parts(one) == []
    assert [text.split(" (")[0] for text in one.changed_parts(BaseIdentity("x", "b", "z"))] == [
        "tokenizer",
        "generation config",
    ]
    assert BaseIdentity.from_mapping(one.to_mapping() | {"processor": "d"}) == one
