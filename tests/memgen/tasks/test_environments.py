"""Environments that a stranger may name: built-in ones, and nothing of a path's or an option's power."""

from pathlib import Path
from typing import Any

import pytest

from memgen.errors import ConfigError
from memgen.tasks.environments import OPTIONS, open_environment


def test_a_known_one_is_opened_with_its_options(tmp_path: Path) -> None:
    task = open_environment("reasoning-gym:spell_backward", {"options": {"max_word_len": 3}}, folder=tmp_path)
    assert task.name == "reasoning-gym:spell_backward"
    assert len(task.training_items(2)) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("os:system", {}, "environment 'os:system' is not known"),
        ("memgen.tasks.bfcl:bfcl", {}, "is not known"),
        ("gsm8k", {}, "is not known"),
        ("textworld:/etc", {}, "is not known"),
        ("reasoning-gym", {}, "is not known"),
        ("reasoning-gym:no_such_dataset", {}, "no_such_dataset"),
        ("reasoning-gym:spell_backward", {"dataset": "x"}, r"got the options \['dataset'\]"),
        ("reasoning-gym:spell_backward", {"options": {"data_file": "/etc/passwd"}}, r"options \['data_file'\]; files"),
        ("reasoning-gym:spell_backward", {"options": "abc"}, "expected names and values"),
        ("reasoning-gym:spell_backward", {"options": {"min_word_len": 90, "max_word_len": 99}}, "makes no dataset"),
        ("reasoning-gym:chain_sum", {"options": {"min_terms": 2.5}}, "makes no dataset 'chain_sum' with the options"),
        ("reasoning-gym:composite", {}, "composite"),
        ("reasoning-gym:pool_matrix", {}, "takes no seed as great as"),
        ("textworld", {"folder": "/etc"}, r"got the options \['folder'\]"),
        ("textworld", {"level": 99}, "level 99"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_environment(name, options, folder=tmp_path)


def test_no_option_names_a_place() -> None:
    assert not {"folder", "cache_dir", "source", "path"} & set().union(*OPTIONS.values())
