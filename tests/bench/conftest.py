"""The tiny base of the benchmarks."""

from pathlib import Path

import pytest
import torch

from memgen.backbone.loading import Backbone, load_backbone


@pytest.fixture(scope="session")
def base(tiny_base: Path) -> Backbone:
    return load_backbone(str(tiny_base), cache_dir=tiny_base.parent, dtype=torch.float32)
