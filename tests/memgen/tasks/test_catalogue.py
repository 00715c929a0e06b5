"""Tasks by name."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from memgen.errors import ConfigError
from memgen.tasks import catalogue
from memgen.tasks.catalogue import BUILT_IN, make_task, task_names
from memgen.tasks.reasoning import Reasoning

READY = Reasoning("spell_backward")


def test_built_in_tasks_are_made_with_options(tmp_path: Path) -> None:
    assert make_task("reasoning-gym:spell_backward", max_new_tokens=9).max_new_tokens == 9
    assert make_task("bfcl", categories=("multiple",)).name == "bfcl"
    assert make_task("textworld", folder=tmp_path).name == "textworld"


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_name_is_that_of_something_callable(name: str) -> None:
    assert callable(catalogue.load(BUILT_IN[name]))


def test_a_task_is_found_by_its_path() -> None:
    assert make_task(f"{__name__}:READY") is READY
    assert make_task("memgen.tasks.reasoning:Reasoning", dataset="spell_backward").name == READY.name


def test_installed_packages_add_tasks_but_replace_none(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", f"{__name__}:READY", "memgen.tasks"),
        EntryPoint("bfcl", f"{__name__}:READY", "memgen.tasks"),
    ]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points if group == "memgen.tasks" else [])
    assert make_task("mine") is READY
    assert make_task("bfcl") is not READY
    assert task_names() == sorted([*BUILT_IN, "mine"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chess", {}, "task 'chess' is not known; expected one of alfworld, bfcl, .*textworld"),
        ("no_such_module:Task", {}, "no task at 'no_such_module:Task': No module named .*bfcl"),
        ("memgen.tasks.reasoning:Nothing", {}, "has no attribute 'Nothing'"),
        ("reasoning-gym", {}, "'reasoning-gym' does not take the options .*dataset"),
        ("bfcl", {"colour": 1}, r"does not take the options \['colour'\]"),
        (f"{__name__}:READY", {"colour": 1}, r"is ready-made; got the options \['colour'\]"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task(name, **options)
