"""Finished pieces of work, one JSON file each: written whole or not at all, never written twice with another meaning.

    plan.json                       the plan, the base's revision, the commands that ran, and where
    trained/<system>.json           how a system's last link was trained
    scores/<system>/<label>.json    what a system scored on a task's held-out items
    text/<system>.json              what a system's loss on ordinary text is
    recipe-<digest>/                the last three of memories, whose recipe (`Plan.recipe`) changes nothing of others

Weights are not here but in a cache folder (`Workplace.weights`).
"""

import json
import os
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import report
from bench.learning.plan import Plan, plan_from
from bench.learning.systems import System, has_memory
from memgen.errors import ArtifactMismatch

RESULTS = report.RESULTS / "learning"
Cell = dict[str, Any]


class Cells:
    """The results of one plan."""

    def __init__(self, plan: Plan, results: Path = RESULTS) -> None:
        self.plan = plan
        self.folder = results / plan.digest

    def begin(self, revision: str, command: str, where: dict[str, Any]) -> None:
        """Note what is about to run: the base's revision, the command, and the machine and code.

        Raises:
            ArtifactMismatch: the results at hand are of another base.
        """
        known = self.heading
        if known["revision"] not in (None, revision):
            raise ArtifactMismatch(
                f"{self.folder} holds results of base {known['revision']}, the loaded one is {revision}; move them away"
            )
        commands = list(dict.fromkeys([*known["commands"], command]))
        places = [*known["where"], *([where] if where not in known["where"] else [])]
        heading = {"revision": revision, "commands": commands, "where": places}
        write_json(self.folder / "plan.json", {"plan": asdict(self.plan), **heading}, indent=1)
        recipe = self.folder / f"recipe-{self.plan.recipe_digest}" / "recipe.json"
        write_json(recipe, self.plan.recipe, indent=1)

    @property
    def heading(self) -> Cell:
        """What `begin` noted."""
        path = self.folder / "plan.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {"commands": [], "revision": None, "where": []}

    def trained(self, system: System) -> Cell | None:
        return _read(self._trained(system))

    def note_training(self, system: System, cell: Cell) -> None:
        write_json(self._trained(system), cell)

    def scored(self, system: System, label: str) -> Cell | None:
        return _read(self._scored(system, label))

    def note_scores(self, system: System, label: str, cell: Cell) -> None:
        write_json(self._scored(system, label), cell)

    def text(self, system: System) -> Cell | None:
        return _read(self._text(system))

    def note_text(self, system: System, cell: Cell) -> None:
        write_json(self._text(system), cell)

    def seeds(self) -> int:
        """One more than the largest seed of which there is a score, 0 of none."""
        scored = [path.name for path in self.folder.glob("scores/*")]
        scored += [path.name for path in self.folder.glob(f"recipe-{self.plan.recipe_digest}/scores/*")]
        found = (re.search(r"-s(\d+)(-|$)", name) for name in scored)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def place(self, system: System) -> Path:
        """Where the system's cells and weights lie in their folders."""
        return Path(f"recipe-{self.plan.recipe_digest}") if has_memory(system) else Path()

    def _trained(self, system: System) -> Path:
        return self.folder / self.place(system) / "trained" / f"{system.name}.json"

    def _scored(self, system: System, label: str) -> Path:
        return self.folder / self.place(system) / "scores" / system.name / f"{label}.json"

    def _text(self, system: System) -> Path:
        return self.folder / self.place(system) / "text" / f"{system.name}.json"


def stored_plans(results: Path = RESULTS) -> dict[str, Plan]:
    """Plans with results by digest, the one with most scores first."""
    found = {path.parent: plan_from(json.loads(path.read_text())["plan"]) for path in results.glob("*/plan.json")}
    order = sorted(found, key=lambda folder: (-len(list(folder.glob("**/scores/*/*.json"))), folder.name))
    return {folder.name: found[folder] for folder in order}


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Whole or not at all, also if the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staging = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(value, indent=indent) + "\n")
    Path(staging).chmod(0o644)
    Path(staging).replace(path)


def _read(path: Path) -> Cell | None:
    return dict(json.loads(path.read_text())) if path.is_file() else None
