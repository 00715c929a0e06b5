"""Places to work at, and a comparison that ran to its end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.learning.cells import Cells
from bench.learning.material import Material
from bench.learning.plan import LearningPlan
from bench.learning.schedule import Unit, run
from bench.learning.serving import SystemServing
from bench.learning.systems import METHODS
from bench.learning.training import Workplace
from memgen.backbone.loading import Backbone
from tests.bench.learning.tiny_plan import PLAN


@pytest.fixture(scope="session")
def workplace(base: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workplace]:
    def make(folder: Path | None = None, plan: LearningPlan = PLAN) -> Workplace:
        folder = folder or tmp_path_factory.mktemp("learning")
        cells = Cells(plan, folder / "results")
        cells.begin(base.revision, "a command", {"machine": "any"})
        return Workplace(plan, base, Material(plan, base, folder / "games"), cells, folder / "weights")

    return make


@pytest.fixture(scope="session")
def finished(workplace: Callable[..., Workplace]) -> tuple[Workplace, list[Unit]]:
    """A comparison that ran to its end, and the units it did."""
    work, did = workplace(), []
    left = run(SystemServing(work, 10**8), list(METHODS), [0], on_unit=lambda unit, _, __: did.append(unit))
    assert left == 0
    return work, did
