"""Which of a routed system's parts serves a prompt, or the bare base (`memgen.routing.router`).

The router is learned from training prompts of the tasks up to the system's stage, and never gets
the name of a task. A game goes where its first prompt is sent.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.learning.systems import BareBase, Routed, Trained
from bench.learning.training import Workplace
from memgen.backbone.states import prompt_states
from memgen.routing.router import Router

_BATCH = 16


def parts_for(work: Workplace, system: Routed, states: Tensor) -> list[BareBase | Trained]:
    """What serves each of the prompts with states `(N, H)`."""
    known = {work.plan.labels[task]: _training_states(work, task, system.seed) for task in range(system.stage + 1)}
    router = Router.fit(work.backbone, known)
    parts = dict(zip(known, system.parts, strict=True))
    return [BareBase() if route.task is None else parts[route.task] for route in router.route(states)]


def held_out_states(work: Workplace, task: int) -> Tensor:
    """`(N, H)` of the first prompts of the task's held-out items."""
    items = work.material.held_out_items(task)
    return _kept(work, f"held-out-{work.plan.labels[task]}", lambda: work.material.first_prompts(items))


def states_of(work: Workplace, prompts: Sequence[tuple[int, ...]]) -> Tensor:
    return prompt_states(work.backbone, prompts, batch_size=_BATCH)


def _training_states(work: Workplace, task: int, seed: int) -> Tensor:
    items = work.material.training_items(task, seed)[: work.plan.router_prompts]
    return _kept(work, f"training-{work.plan.labels[task]}-s{seed}", lambda: work.material.first_prompts(items))


def _kept(work: Workplace, name: str, prompts: Callable[[], Sequence[tuple[int, ...]]]) -> Tensor:
    """States of prompts, from the cache folder if they are there."""
    path = work.weights / "states" / f"{name}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as making:  # of each process its own
            staging = Path(making, path.name)
            save_file({"states": states_of(work, prompts())}, staging)
            staging.replace(path)
    return load_file(path)["states"]
