"""`python -m bench.judges`: how good is the base as a judge? On runs whose reward is known, against chance.

Each held-out item of three tasks has two runs: one answers as the expert does, the other as the expert does to another
item; the task's own grader says that the one is right and the other is not. The base judges them by the product's own
questions, as a job would: each run alone (pointwise), and both together in two orders (relative). Agreement is the
share of items on which it puts the right run above the wrong one, a tie or no decision counting half: 0.5 is chance.

Writes `bench/results/judges.json`. Minutes on two cores.
"""

import argparse
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.report import RESULTS, commit, machine_of
from memgen.backbone.loading import Backbone, load_backbone, prepare_process
from memgen.generation.intervals import wilson_interval
from memgen.memory.host import AdapterHost
from memgen.tasks.catalogue import make_task
from memgen.tasks.task import SingleTurn
from memgen.text.answers import Answer
from registry.judging.answers import ReadVerdict, read_answer
from registry.judging.judgements import concordance
from registry.judging.judges import JudgeSettings
from registry.judging.prompts import JudgedRun, JudgePrompt, JudgingTerms, ranking_prompt, score_prompt
from registry.judging.ranking import rank_rewards
from registry.settings import load_settings
from workers.judge_models import Ask, Build, JudgeModel
from workers.local_judge import LocalJudge

RESULTS_FILE = RESULTS / "judges.json"
TASKS = ("reasoning-gym:family_relationships", "reasoning-gym:spell_backward", "reasoning-gym:chain_sum")
RUBRIC = "Is the assistant's answer to the user's question right? A right answer is the best, a wrong one the worst."
_IDS = uuid.UUID("7d0d8c0e-6a3f-4a52-9d8f-2f6b1c1f9a10")
"""Runs have ids that follow from their items, so that the same questions are asked each time."""


@dataclass(frozen=True)
class JudgedPair:
    """One question with a right answer and a wrong one."""

    right: JudgedRun
    wrong: JudgedRun
    prompt_messages: int


def make_pairs(task_name: str, count: int) -> list[JudgedPair]:
    """Each item's expert answer, beside that of the next item whose answer is wrong here."""
    items = [item for item in make_task(task_name).held_out_items(count) if isinstance(item, SingleTurn)]
    pairs = []
    for place, item in enumerate(items):
        others = (items[(place + step) % len(items)].reference.message["content"] for step in range(1, len(items)))
        right, wrong = item.reference.message["content"], next(each for each in others if _reward(item, each) < 0.5)
        if _reward(item, right) == 1.0:
            runs = [JudgedRun(uuid.uuid5(_IDS, f"{item.item_id} {kind}"), _said(item, text))
                    for kind, text in (("right", right), ("wrong", wrong))]  # fmt: skip
            pairs.append(JudgedPair(runs[0], runs[1], len(item.prompt)))
    return pairs


def judge_task(judge: JudgeModel, terms: JudgingTerms, pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    """How a judge orders the right and the wrong run of each pair: 1, 0, or 0.5 for a tie or no decision."""
    runs = [run for pair in pairs for run in (pair.right, pair.wrong)]
    scored = _ask(judge, [partial(score_prompt, terms, run) for run in runs])
    scores = [None if read is None else read.score for read in scored]
    alone = [_preference(scores[2 * place], scores[2 * place + 1]) for place in range(len(pairs))]
    read_scores = [(score, 1.0 - place % 2, None) for place, score in enumerate(scores) if score is not None]
    ranked = _ask(judge, [_ranking(terms, pair, order, place) for place, pair in enumerate(pairs) for order in (0, 1)])
    together = [_ranked(ranked[2 * place], ranked[2 * place + 1], place) for place in range(len(pairs))]
    return {
        "items": len(pairs),
        "pointwise": {
            **_share(alone),
            "ties": alone.count(0.5) / len(alone),
            "unparsable": scores.count(None) / len(scores),
            "mean_score_right": _mean(scores[::2], terms.scale),
            "mean_score_wrong": _mean(scores[1::2], terms.scale),
            # Over all pairs of runs of the task, as `memgen judge show` counts it.
            "agreement_all_pairs": concordance(read_scores).concordance,
        },
        "relative": {**_share(together), "undecided": together.count(0.5) / len(together)},
    }


def measure(backbone: Backbone, items: int, tasks: Sequence[str], console: Console) -> dict[str, Any]:
    settings = JudgeSettings()
    judge = LocalJudge(AdapterHost(backbone), lambda prompts: [None] * len(prompts), settings)
    terms = JudgingTerms(_IDS, RUBRIC, settings.scale, settings.max_answer_tokens)
    found: dict[str, Any] = {}
    started = time.perf_counter()
    for name in tasks:
        found[name] = judge_task(judge, terms, make_pairs(name, items))
        console.print(_table(name, found[name]))
    return {
        "model": backbone.name,
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "how": "held-out items, a right and a wrong run each; greedy; agreement with the task's grader, 0.5 is chance; "
        "95% Wilson intervals over items",
        "rubric": RUBRIC,
        "tasks": found,
        "agreement": {kind: _together([each[kind] for each in found.values()]) for kind in ("pointwise", "relative")},
        "seconds": round(time.perf_counter() - started, 1),
        "where": {"machine": machine_of(backbone), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "commit": commit(),
    }


def _reward(item: SingleTurn, text: str) -> float:
    return item.grader(Answer(text), item.reference)


def _said(item: SingleTurn, text: str) -> list[dict[str, Any]]:
    return [*map(dict, item.prompt), {"role": "assistant", "content": text}]


def _ask(judge: JudgeModel, builds: Sequence[Build]) -> list[ReadVerdict | None]:
    """The verdicts; None where an answer was none. A job would ask once more, at a temperature; this asks once."""
    fitted = [fit for build in builds if (fit := judge.fit(build)) is not None]
    if len(fitted) < len(builds):
        raise SystemExit("a question does not fit into the model's context; expected short items")
    heard = judge.ask([Ask(prompt, tokens) for prompt, tokens in fitted], lambda: None)
    return [read_answer(answer.text, prompt) for answer, (prompt, _) in zip(heard, fitted, strict=True)]


def _ranking(terms: JudgingTerms, pair: JudgedPair, order: int, place: int) -> Callable[[int], JudgePrompt | None]:
    """Which run comes first in the first order changes from pair to pair."""
    begin = pair.prompt_messages
    runs = [JudgedRun(run.id, run.messages[begin:]) for run in (pair.right, pair.wrong)]
    shown = runs if (order + place) % 2 == 0 else runs[::-1]
    shared = pair.right.messages[:begin]
    return lambda characters: ranking_prompt(terms, shown, shared, characters, order=order)


def _ranked(first: ReadVerdict | None, second: ReadVerdict | None, place: int) -> float:
    """The right run's reward, 1 or 0; 0.5 if the two orders disagree, or one was not answered."""
    if first is None or second is None:
        return 0.5
    right_first = place % 2 == 0  # as the first order shows them
    ranking = first.ranking if right_first else [1 - run for run in first.ranking]
    back = [1 - run for run in second.ranking] if right_first else second.ranking
    rewards = rank_rewards(ranking, back).rewards
    return 0.5 if rewards is None else rewards[0]


def _preference(right: int | None, wrong: int | None) -> float:
    if right is None or wrong is None or right == wrong:
        return 0.5
    return float(right > wrong)


def _share(found: Sequence[float]) -> dict[str, Any]:
    low, high = wilson_interval(sum(found), len(found))
    return {"agreement": sum(found) / len(found), "interval": [low, high], "preferences": list(found)}


def _mean(scores: Sequence[int | None], scale: int) -> float | None:
    read = [score / scale for score in scores if score is not None]
    return sum(read) / len(read) if read else None


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All tasks' items as one."""
    return _share([each for part in parts for each in part["preferences"]])


def _table(name: str, found: dict[str, Any]) -> Table:
    table = Table("judging", "agreement", "95%", "undecided", title=f"{name}, {found['items']} items")
    for kind, undecided in (("pointwise", "ties"), ("relative", "undecided")):
        part = found[kind]
        low, high = part["interval"]
        table.add_row(kind, f"{part['agreement']:.1%}", f"{low:.1%} to {high:.1%}", f"{part[undecided]:.0%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=16, help="held-out items of each task")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads; 0 is its own choice")
    parser.add_argument("--out", type=Path, default=RESULTS_FILE)
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    settings = load_settings()
    backbone = load_backbone(settings.base_model, cache_dir=settings.models_dir, revision=settings.base_revision)
    console = Console()
    document = measure(backbone, arguments.items, TASKS, console)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    for kind in ("pointwise", "relative"):
        part = document["agreement"][kind]
        low, high = part["interval"]
        console.print(f"{kind}: {part['agreement']:.1%} ({low:.1%} to {high:.1%}); chance is 50%")


if __name__ == "__main__":
    main()
