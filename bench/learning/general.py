"""What a system still knows of ordinary text: the loss of text that has nothing to do with any task.

The system serves a request to continue a text; measured is the mean token loss (nats) of the text's own second half,
piece by piece. Memory is woven where it would be when serving, if the router says so; a learned trigger is asked at the
prompt's end alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from bench.learning.cells import Cell
from bench.learning.material import Material
from bench.learning.prompting import prompting_of
from bench.learning.routing import parts_for, states_of
from bench.learning.serving import host_of
from bench.learning.systems import FewShot, Retrieval, Routed, System
from bench.learning.training import Workplace
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.training.examples import Example
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.losses import mean_by_example

_BATCH = 8


def note_text(work: Workplace, system: System) -> None:
    """Measure the system's loss of every piece of text, and keep that."""
    examples = _examples(work.material, system)
    losses = [0.0] * len(examples)
    if isinstance(system, Routed):
        states = states_of(work, [example.prompt_ids for example in examples])
        parts: Sequence[System] = parts_for(work, system, states)
    else:
        parts = [system] * len(examples)
    for part in dict.fromkeys(parts):
        numbers = [number for number, one in enumerate(parts) if one == part]
        host, memory = host_of(work, part)
        for number, loss in zip(numbers, _losses(host, memory, [examples[n] for n in numbers]), strict=True):
            losses[number] = loss
    served_by = {part.name: list(parts).count(part) for part in dict.fromkeys(parts)}
    cell: Cell = {
        "nll": sum(losses) / len(losses),
        "served_by": served_by,
        "losses": [round(loss, 5) for loss in losses],
    }
    work.cells.note_text(system, cell)


def _examples(material: Material, system: System) -> list[Example]:
    prompting = prompting_of(material, system, None) if isinstance(system, FewShot | Retrieval) else list
    return [material.example([*prompting(messages[:-1]), messages[-1]]) for messages in material.text_messages()]


@torch.no_grad()
def _losses(host: AdapterHost, memory: str | None, examples: Sequence[Example]) -> list[float]:
    if memory is not None and host.memories[memory].config.trigger in ("lora", "head"):
        examples = _where_triggered(host, memory, examples)
    prefixes = PrefixStore(host.backbone, 0)
    losses: list[float] = []
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        nll, rows = supervised_nll(host, memory, batch, prefixes)
        losses += mean_by_example(nll, rows, len(batch)).tolist()
    return losses


def _where_triggered(host: AdapterHost, memory: str, examples: Sequence[Example]) -> list[Example]:
    """The examples with memory woven at the prompt's end where the trigger says so, and nowhere else."""
    requests = [GenerationRequest(example.prompt_ids, Sampling(1), memory) for example in examples]
    answers = generate_all(host, requests, batch_size=_BATCH)
    return [
        replace(example, insertions=(0,) if answer.decisions[0].invoked else ())
        for example, answer in zip(examples, answers, strict=True)
    ]
