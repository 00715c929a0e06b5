"""What processes do that fail: in a module of its own, which they import in a moment."""

import os
import time

import torch

from memgen.errors import TrainingDiverged
from memgen.training.devices import Devices, ParentLink


def work(devices: Devices, device: torch.device, link: ParentLink, how: str) -> float:
    if how == "fails" and devices.rank == 1:
        raise RuntimeError("out of luck")
    if how == "dies" and devices.rank == 1:
        os._exit(9)
    if how == "diverges":
        # The second is slower to say so.
        time.sleep(devices.rank)
        raise TrainingDiverged("both say so")
    return float(devices.total(torch.ones(1, device=device)))
