"""One link of a chain: a LoRA or a memory is trained on from what its parent left.

LoRA SFT (PEFT, `bench.plain_lora`) and weaver SFT take the same examples in the same order and batches, with the same
schedule, clipping and number of optimizer steps. Weights lie in a cache folder; lost ones are trained again, and a
training that was killed goes on from its last checkpoint.
"""

import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from bench.learning.cells import Cell, Cells, write_json
from bench.learning.material import Material
from bench.learning.plan import LearningPlan
from bench.learning.systems import GRPO, LORAS, SFT, WIDE_LORA, Trained
from bench.plain_lora import SHAPE, WIDE_SHAPE, PlainLora
from memgen.artifacts.artifact import LORA_FILE, load_artifact, save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import Lora
from memgen.config import MemoryConfig
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from memgen.training.batches import batch_of_step
from memgen.training.checkpoint import load_training_state, save_training_state
from memgen.training.run_control import RunControl
from memgen.training.trigger.grpo import train_trigger
from memgen.training.weaver.grpo import train_weaver_grpo
from memgen.training.weaver.sft import did_not_learn, train_weaver

MEMORY_NAME = "memory"
_CHECKPOINT_SECONDS = 30.0
_PARENT = "parent"
_NOTE = "trained.json"
"""Beside the weights: what is noted of the training, should the process die before it is."""


@dataclass(frozen=True)
class Workplace:
    """What every piece of work needs."""

    plan: LearningPlan
    backbone: Backbone
    material: Material
    cells: Cells
    weights: Path
    """Folder of this plan's trained weights."""


def ensure_trained(work: Workplace, system: Trained) -> Path:
    """The folder of the system's weights; what is missing of its lineage is trained and noted."""
    weights = work.weights / work.cells.place(system)
    folder = weights / system.name
    if not folder.is_dir():
        parent = ensure_trained(work, system.parent) if system.parent else None
        weights.mkdir(parents=True, exist_ok=True)
        checkpoint = weights / f"{system.name}.checkpoint"
        with tempfile.TemporaryDirectory(dir=weights, prefix=".making-") as making:
            made = Path(making, "made")
            train = _train_lora if system.family in LORAS else _train_memory
            cell = train(work, system, parent, made, checkpoint)
            cell |= {"system": system.name, "load_average": round(os.getloadavg()[0], 2)}
            write_json(made / _NOTE, cell)
            shutil.move(made, folder)
        checkpoint.unlink(missing_ok=True)
    if work.cells.trained(system) is None:
        work.cells.note_training(system, json.loads((folder / _NOTE).read_text()))
    return folder


def load_memory(host: AdapterHost, folder: Path) -> Memory:
    """The trained memory, under `MEMORY_NAME`."""
    return load_artifact(host, MEMORY_NAME, folder)


def load_adapter(backbone: Backbone, system: Trained, folder: Path) -> Lora:
    """The trained LoRA of the base."""
    lora = Lora.for_model(backbone.model, _shape(system), torch.Generator())
    lora.load_state_dict({key: tensor.to(backbone.device) for key, tensor in load_file(folder / LORA_FILE).items()})
    return lora


def _shape(system: Trained) -> MemoryConfig:
    return WIDE_SHAPE if system.family == WIDE_LORA else SHAPE


def _train_lora(work: Workplace, system: Trained, parent: Path | None, made: Path, checkpoint: Path) -> Cell:
    config = work.plan.sft_config(system.seed, system.chain[-1].times)
    examples = work.material.sft_examples(system.chain[-1], system.seed).examples
    rate = config.learning_rate if system.rate is None else system.rate
    targets = _shape(system).target_modules
    lora = PlainLora(work.backbone, learning_rate=rate, target_modules=targets, seed=system.seed)
    if parent is not None:
        set_peft_model_state_dict(lora.model, load_file(parent / LORA_FILE))
    before = [parameter.detach().clone() for parameter in lora.parameters]
    losses, seconds, tokens = _resume(lora, checkpoint)
    saved = time.monotonic()
    for step in range(lora.steps, config.steps):
        batch = batch_of_step(examples, config, step)
        began = time.monotonic()
        losses.append(lora.step(batch, schedule=config))
        seconds += time.monotonic() - began
        tokens += sum(example.tokens for example in batch)
        if time.monotonic() - saved >= _CHECKPOINT_SECONDS:
            state = {"losses": losses, "seconds": seconds, "tokens": tokens}
            save_training_state(checkpoint, lora.parameters, lora.optimizer, state)
            saved = time.monotonic()
    made.mkdir()
    save_file({k: v.contiguous() for k, v in get_peft_model_state_dict(lora.model).items()}, made / LORA_FILE)
    return {
        **_speed(seconds, tokens, config.steps),
        "examples": len(examples),
        "losses": _rounded(losses),
        "flags": list(did_not_learn(losses, before, lora.parameters)),
        "parameters": sum(parameter.numel() for parameter in lora.parameters),
        "config": {**config.to_mapping(), "learning_rate": rate},
    }


def _resume(lora: PlainLora, checkpoint: Path) -> tuple[list[float], float, int]:
    """(losses, seconds, tokens) so far."""
    if not checkpoint.is_file():
        return [], 0.0, 0
    state, _ = load_training_state(checkpoint, lora.parameters, lora.optimizer)
    lora.steps = len(state["losses"])
    return list(state["losses"]), float(state["seconds"]), int(state["tokens"])


def _train_memory(work: Workplace, system: Trained, parent: Path | None, made: Path, checkpoint: Path) -> Cell:
    link = system.chain[-1]
    host = AdapterHost(work.backbone)
    if parent is not None:
        load_artifact(host, _PARENT, parent)
    train = {SFT: _weaver_sft, GRPO: _weaver_grpo}.get(link.kind, _trigger_grpo)
    cell, report = train(work, host, system, checkpoint)
    save_artifact(host, MEMORY_NAME, made, report)
    memory = host.memories[MEMORY_NAME]
    parameters = [*memory.weaver_parameters(), *memory.trigger_parameters()]
    return {**cell, "parameters": sum(parameter.numel() for parameter in parameters)}


def _weaver_sft(work: Workplace, host: AdapterHost, system: Trained, checkpoint: Path) -> tuple[Cell, TrainingReport]:
    _grown(host, work.plan, system)
    config = work.plan.sft_config(system.seed, system.chain[-1].times)
    data = work.material.sft_examples(system.chain[-1], system.seed)
    report = train_weaver(host, MEMORY_NAME, data, config, control=RunControl(checkpoint=checkpoint))
    cell = {
        **_speed(report.seconds, report.tokens, report.steps),
        "examples": report.examples,
        "losses": _rounded(report.losses),
        "flags": list(report.flags),
        "config": config.to_mapping(),
    }
    return cell, report


def _weaver_grpo(work: Workplace, host: AdapterHost, system: Trained, checkpoint: Path) -> tuple[Cell, TrainingReport]:
    _grown(host, work.plan, system)
    config = work.plan.grpo_config(system.seed, work.material.new_tokens(system.tasks))
    items = work.material.reward_items(system.chain[-1], system.seed)
    report = train_weaver_grpo(host, MEMORY_NAME, items, config, control=RunControl(checkpoint=checkpoint))
    cell = {
        **_speed(report.seconds, report.tokens, report.optimizer_steps),
        "rollouts": report.rollouts,
        "groups": report.groups,
        "groups_skipped": report.groups_skipped,
        "rewards": _rounded(report.rewards),
        "flags": list(report.flags),
        "config": config.to_mapping(),
    }
    return cell, _artifact_report(cell, config.steps)


def _trigger_grpo(work: Workplace, host: AdapterHost, system: Trained, checkpoint: Path) -> tuple[Cell, TrainingReport]:
    plain = host.memories[_PARENT]
    shape = work.plan.memory_config(rereads=system.rereads, with_trigger=True)
    memory = host.create(MEMORY_NAME, shape, seed=system.seed)
    memory.weaver.load_state_dict(plain.weaver.state_dict())
    memory.load_state_dict(plain.state_dict(), strict=False)  # which has no trigger's head
    config = work.plan.trigger_config(system.seed, work.material.new_tokens(system.tasks))
    items = work.material.trigger_items(system.tasks, system.seed)
    report = train_trigger(host, MEMORY_NAME, items, config, control=RunControl(checkpoint=checkpoint))
    cell = {
        **_speed(report.seconds, 0, report.optimizer_steps),
        "rollouts": report.rollouts,
        "groups": report.groups,
        "groups_skipped": report.groups_skipped,
        "rewards": _rounded(report.rewards),
        "invoked": {task: rate.rate for task, rate in report.by_task.items()},
        "flags": list(report.flags),
        "config": config.to_mapping(),
    }
    return cell, _artifact_report(cell, config.steps)


def _grown(host: AdapterHost, plan: LearningPlan, system: Trained) -> None:
    """A memory to train: the parent's weights if there is one, else a fresh one's."""
    host.create(MEMORY_NAME, plan.memory_config(rereads=system.rereads), seed=system.seed)
    if _PARENT in host.memories:
        host.copy(_PARENT, MEMORY_NAME)


def _artifact_report(cell: Cell, steps: int) -> TrainingReport:
    return TrainingReport(0, 0, 0, steps, cell["tokens"], cell["seconds"], (), tuple(cell["flags"]))


def _speed(seconds: float, tokens: int, steps: int) -> dict[str, Any]:
    speed = round(tokens / seconds, 1) if seconds else None
    return {"seconds": round(seconds, 2), "tokens": tokens, "tokens_per_second": speed, "optimizer_steps": steps}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]
