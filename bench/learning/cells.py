"""Finished pieces of work of a plan, each a JSON value under a key, all in one `bench.learning.pack.Pack`.

    plan                            the plan, the base's revision, the commands that ran, and where
    made                            date and commit of the newest results
    trained/<system>                how a system's last link was trained
    scores/<system>/<label>         what a system scored on a task's held-out items
    text/<system>                   what a system's loss on ordinary text is
    recipe-<digest>/                the last three of memories: their recipe (`LearningPlan.recipe`) changes no others

Weights are not here but in a cache folder (`Workplace.weights`).
"""

import json
import os
import re
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import report
from bench.learning.pack import Pack
from bench.learning.plan import LearningPlan, plan_from
from bench.learning.systems import System, has_memory
from memgen.errors import ArtifactMismatch

RESULTS = report.RESULTS / "learning"
_SUFFIX = ".jsonl.gz"
Cell = dict[str, Any]


class Cells:
    """The results of one plan."""

    def __init__(self, plan: LearningPlan, results: Path = RESULTS) -> None:
        self.plan = plan
        self.pack = Pack(results / f"{plan.digest}{_SUFFIX}")

    def begin(self, revision: str, command: str, where: dict[str, Any]) -> None:
        """Note what is about to run: the base's revision, the command, and the machine and code.

        Raises:
            ArtifactMismatch: the stored results are of another base.
        """

        def noted(known: Cell | None) -> Cell:
            commands, places = (known or {}).get("commands", []), (known or {}).get("where", [])
            stored = (known or {}).get("revision", revision)
            if stored != revision:
                raise ArtifactMismatch(
                    f"{self.pack.path} holds results of base {stored}, the loaded one is {revision}; move it away"
                )
            return {
                "plan": json.loads(json.dumps(asdict(self.plan))),
                "revision": revision,
                "commands": list(dict.fromkeys([*commands, command])),
                "where": [*places, *([where] if where not in places else [])],
            }

        self.pack.update("plan", noted)
        self.pack.put(f"recipe-{self.plan.recipe_digest}/recipe", json.loads(json.dumps(self.plan.recipe)))

    @property
    def heading(self) -> Cell:
        """The plan, revision, commands and machines that `begin` noted."""
        return self.pack.get("plan") or {"commands": [], "revision": None, "where": []}

    @property
    def made(self) -> Cell:
        """`date` of the newest result and the `commit` that was checked out then; None where they are not known."""
        return self.pack.get("made") or {"date": None, "commit": None}

    def trained(self, system: System) -> Cell | None:
        """How the last link of a system was trained; None if it was not yet."""
        return self.pack.get(self.key_of_training(system))

    def note_training(self, system: System, cell: Cell) -> None:
        self._note(self.key_of_training(system), cell)

    def scored(self, system: System, label: str) -> Cell | None:
        """What a system scored on a task; None if it did not yet."""
        return self.pack.get(self.key_of_scores(system, label))

    def note_scores(self, system: System, label: str, cell: Cell) -> None:
        self._note(self.key_of_scores(system, label), cell)

    def text(self, system: System) -> Cell | None:
        """The loss of a system on ordinary text; None if it was not measured yet."""
        return self.pack.get(self._key(system, "text"))

    def note_text(self, system: System, cell: Cell) -> None:
        self._note(self._key(system, "text"), cell)

    def seeds(self) -> int:
        """One more than the largest seed of which there is a score, 0 of none."""
        recipe = re.escape(f"recipe-{self.plan.recipe_digest}/")
        pattern = re.compile(rf"(?:{recipe})?scores/[^/]*-s(\d+)(?=[-/])")
        found = (pattern.match(key) for key in self.pack)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def place(self, system: System) -> Path:
        """Where the system's cells and weights lie among others."""
        return Path(f"recipe-{self.plan.recipe_digest}") if has_memory(system) else Path()

    def key_of_training(self, system: System) -> str:
        """The key of `trained` in the pack."""
        return self._key(system, "trained")

    def key_of_scores(self, system: System, label: str) -> str:
        """The key of `scored` in the pack."""
        return f"{self._key(system, 'scores')}/{label}"

    def _key(self, system: System, kind: str) -> str:
        return (self.place(system) / kind / system.name).as_posix()

    def _note(self, key: str, cell: Cell) -> None:
        self.pack.put(key, cell)
        self.pack.put("made", {"date": datetime.now(UTC).date().isoformat(), "commit": report.commit()})


def stored_plans(results: Path = RESULTS) -> dict[str, LearningPlan]:
    """Plans with results by digest, the one with most scores first.

    Raises:
        ArtifactMismatch: a plan's results are in a folder with a file a cell, as releases before this one wrote them.
    """
    if former := sorted(path.parent.name for path in results.glob("*/plan.json")):
        raise ArtifactMismatch(
            f"{results} has results of {', '.join(former)} with a file a cell, as an older release wrote; expected "
            "one packed file a plan. Write their report with that release, or move the folders away"
        )
    packs = {path.name.removesuffix(_SUFFIX): Pack(path) for path in results.glob(f"*{_SUFFIX}")}
    found = {digest: noted["plan"] for digest, pack in packs.items() if (noted := pack.get("plan")) is not None}
    scores = {digest: sum("scores/" in key for key in packs[digest]) for digest in found}
    return {digest: plan_from(found[digest]) for digest in sorted(found, key=lambda one: (-scores[one], one))}


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write the file whole or not at all, also if the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staging = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(value, indent=indent) + "\n")
    Path(staging).chmod(0o644)
    Path(staging).replace(path)
