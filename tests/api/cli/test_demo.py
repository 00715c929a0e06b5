"""`memgen demo` as a command; the story itself is tested where it is told."""

import json
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

from registry.settings import Settings
from tests.api.cli.invoking import fail, memgen


class DemoFailed(Exception):
    """Stands for the story's own."""


def test_demo_hands_over_and_keeps_stdout_for_the_report(no_service: Path, tmp_path: Path) -> None:
    def run_demo(settings: Settings, *, report_path: Path) -> int:
        if report_path.name == "bad.json":
            raise DemoFailed("no happy end")
        print("once upon a time")  # noqa: T201  # what a story does
        report_path.write_text(json.dumps({"home": str(settings.home)}))
        return 3

    story = ModuleType("api.cli.demo_story.story")
    story.run_demo, story.DemoFailed = run_demo, DemoFailed  # type: ignore[attr-defined]  # a stand-in module
    report = tmp_path / "report.json"
    with mock.patch.dict(sys.modules, {"api.cli.demo_story.story": story}):
        done = memgen("demo", "--report", str(report), "--json")
        assert "no happy end" in fail("demo", "--report", str(tmp_path / "bad.json"))
        told = memgen("demo", "--report", str(report))
    assert (done.code, done.document, done.err) == (3, {"home": str(no_service)}, "once upon a time\n")
    assert (told.code, told.out) == (3, "once upon a time\n")
