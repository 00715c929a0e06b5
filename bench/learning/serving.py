"""What a system scores on items of a task: greedy, batched, all through one engine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.learning.adapted import adapted
from bench.learning.cells import Cell
from bench.learning.material import VALIDATION
from bench.learning.prompting import PromptedItem, prompting_of
from bench.learning.routing import held_out_states, parts_for
from bench.learning.systems import LORAS, BareBase, FewShot, Majority, Retrieval, Routed, System, Trained
from bench.learning.training import MEMORY_NAME, Workplace, ensure_trained, load_adapter, load_memory
from memgen.backbone.prompt_cache import PromptCache
from memgen.evaluation.episodes import score_task
from memgen.memory.host import AdapterHost
from memgen.tasks.task import TaskItem
from memgen.text.answers import Answer

BATCH = 32
_EXAMPLES = 5
_PROMPT_BYTES = 2**30


@dataclass(frozen=True)
class SystemScores:
    """What a system scored on some items, in their order."""

    scores: tuple[float, ...]
    answers: tuple[str, ...]
    """Fewer than items where they come from a cell."""
    seconds: float
    prompt_tokens: int = 0
    """Tokens of the prompts of all turns."""
    new_tokens: int = 0
    asked: int = 0
    """Decision points."""
    invoked: int = 0

    def cell(self) -> Cell:
        """The cell that is stored; only a few of the answers are kept, for a look at them."""
        return {
            "score": sum(self.scores) / len(self.scores),
            "seconds": round(self.seconds, 2),
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "asked": self.asked,
            "invoked": self.invoked,
            "answers": [answer[:300] for answer in self.answers[:_EXAMPLES]],
            "scores": [round(score, 4) for score in self.scores],
        }


class SystemServing:
    """Answers items. Prompts that the bare base has read are kept for all memories."""

    def __init__(self, work: Workplace, prompt_bytes: int) -> None:
        self.work = work
        self._prompts = PromptCache(work.backbone.decoder, prompt_bytes)

    def note_scores(self, system: System, task: int) -> Cell:
        """Score the system on the held-out items of a task, and keep that."""
        if isinstance(system, Routed):
            cell = self._routed(system, task)
        else:
            cell = self.score(system, task, self.work.material.held_out_items(task)).cell()
        self.work.cells.note_scores(system, self.work.plan.labels[task], cell)
        return cell

    def note_validation(self, system: Trained) -> None:
        """Score LoRA SFT of the first task on the items that its learning rate is chosen on."""
        scores = self.score(system, 0, self.work.material.validation_items())
        self.work.cells.note_scores(system, VALIDATION, scores.cell())

    def score(self, system: System, task: int, items: Sequence[TaskItem]) -> SystemScores:
        """Let one system answer; a routed one has `note_scores` only."""
        material = self.work.material
        if isinstance(system, Majority):
            return _constant(material.most_frequent_answer(task, system.seed), items)
        host, memory = host_of(self.work, system)
        prompts = self._prompts if host.backbone is self.work.backbone else None
        if isinstance(system, FewShot | Retrieval):
            prompting = prompting_of(material, system, task)
            items = [PromptedItem(item, prompting) for item in items]
            prompts = PromptCache(self.work.backbone.decoder, _PROMPT_BYTES)
        new_tokens = material.new_tokens([task])
        found = score_task(host, memory, items, max_new_tokens=new_tokens, batch_size=BATCH, prompts=prompts)
        turns = [turn for episode in found.episodes for turn in episode.turns]
        decisions = [decision for turn in turns for decision in turn.generation.decisions]
        return SystemScores(
            tuple(item.score for item in found.suite.items),
            tuple(item.answer for item in found.suite.items),
            found.suite.seconds,
            sum(len(turn.prompt_ids) for turn in turns),
            sum(len(turn.generation.token_ids) for turn in turns),
            len(decisions),
            sum(decision.invoked for decision in decisions),
        )

    def _routed(self, system: Routed, task: int) -> Cell:
        """Each item by the part that it is routed to. A part's scores on its own task, and the base's, are kept as
        such, for what is sent there is answered alike at every stage."""
        parts = parts_for(self.work, system, held_out_states(self.work, task))
        items = self.work.material.held_out_items(task)
        scores = [0.0] * len(items)
        answers = [""] * len(items)
        totals = dict.fromkeys(("seconds", "prompt_tokens", "new_tokens", "asked", "invoked"), 0.0)
        for part in dict.fromkeys(parts):
            numbers = [number for number, one in enumerate(parts) if one == part]
            whole = self.work.cells.scored(part, self.work.plan.labels[task])
            if whole is None and (isinstance(part, BareBase) or part.chain[-1].task == task):
                whole = self.note_scores(part, task)
            if whole is None:
                cell, positions, share = self.score(part, task, [items[n] for n in numbers]).cell(), None, 1.0
            else:
                cell, positions, share = whole, numbers, len(numbers) / len(items)
            for order, number in enumerate(numbers):
                position = order if positions is None else number
                scores[number] = cell["scores"][position]
                answers[number] = cell["answers"][position] if position < len(cell["answers"]) else ""
            for key in totals:
                totals[key] += share * cell[key]
        counts = {key: round(value) for key, value in totals.items() if key != "seconds"}
        served_by = {part.name: parts.count(part) for part in dict.fromkeys(parts)}
        return {
            **SystemScores(tuple(scores), tuple(answers), totals["seconds"], **counts).cell(),
            "served_by": served_by,
        }


def host_of(work: Workplace, system: System) -> tuple[AdapterHost, str | None]:
    """(host, name of the memory in it or None) that serve a system that is not routed; trained now if need be."""
    if not isinstance(system, Trained):
        return AdapterHost(work.backbone), None
    folder = ensure_trained(work, system)
    if system.family in LORAS:
        return AdapterHost(adapted(work.backbone, load_adapter(work.backbone, system, folder))), None
    host = AdapterHost(work.backbone)
    load_memory(host, folder)
    return host, MEMORY_NAME


def _constant(answer: Answer, items: Sequence[TaskItem]) -> SystemScores:
    """The same answer at every turn of every item."""
    started = time.perf_counter()
    scores = []
    for item in items:
        environment = item.open()
        try:
            seen = environment.reset()
            reward, turns = seen.reward, 0
            while not seen.done and turns < item.max_turns:
                seen = environment.step(answer)
                reward, turns = reward + seen.reward, turns + 1
        finally:
            environment.close()
        scores.append(reward)
    text = answer.content or str(list(answer.tool_calls))
    return SystemScores(tuple(scores), (text,) * len(scores), time.perf_counter() - started)
