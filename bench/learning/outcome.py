"""`learning.json`: each complete method's numbers, the claims they bear out or not, and how they were made."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.learning.cells import Cell, Cells, write_json
from bench.learning.metrics import (
    SeedResult,
    base_row,
    compare,
    item_interval,
    mean_scores,
    seed_interval,
    seed_results,
    share_interval,
    system_at,
)
from bench.learning.schedule import chosen_rate, pending
from bench.learning.systems import METHODS, BareBase, Routed, System, Trained, is_ours

LEAST_BWT = -0.01
"""The claim: forgetting of no more than a point."""


@dataclass(frozen=True)
class Cost:
    """What training and answering took, for one method and seed."""

    train_seconds: float
    added_parameters: int
    tokens_per_second: float | None
    """Prompt and answer tokens of SFT in a second; None without such training."""
    answer_seconds: float
    """Seconds of an item at the end of training."""
    prompt_tokens: float
    """Prompt tokens of an item, all turns together."""


def outcome(cells: Cells, seeds: int) -> dict[str, Any]:
    """The document of the first `seeds` seeds, or of all that have a score if these are more; of seeds that are not
    complete nothing is in it."""
    seeds = max(seeds, cells.seeds())
    results = {name: seed_results(cells, name, seeds) for name in METHODS}
    complete = {name: found for name, found in results.items() if found}
    counts = [len(found) for found in complete.values()]
    return {
        "tasks": cells.plan.labels,
        "seeds": min(counts, default=0),
        "methods": {name: _method(cells, name, found) for name, found in complete.items()},
        "base": base_row(cells),
        "claims": claims(cells, complete),
        "incomplete": sorted(name for name in results if name not in complete),
        "units_left": len(pending(cells, list(METHODS), range(seeds))),
        "held_out_items": cells.plan.items,
        "steps": cells.plan.steps,
        "lora_rate": chosen_rate(cells),
        "plan": cells.plan.digest,
        **{key: value for key, value in cells.heading.items() if key != "plan"},
    }


def write_outcome(cells: Cells, seeds: int) -> dict[str, Any]:
    """Write the document as `learning.json` beside the folder of all plans' packs; returns it."""
    document = outcome(cells, seeds)
    write_json(cells.pack.path.parent.parent / "learning.json", document, indent=1)
    return document


def _method(cells: Cells, name: str, found: dict[int, SeedResult]) -> dict[str, Any]:
    results, seeds = list(found.values()), list(found)
    by_seed = {key: [getattr(result, key) for result in results] for key in ("acc", "bwt", "fwt", "in_domain")}
    last = [[float(value or 0.0) for value in result.matrix[-1]] for result in results]
    costs = [cost(cells, name, seed) for seed in seeds]
    text = [cell["nll"] for seed in seeds if (cell := _text(cells, name, seed)) is not None]
    return {
        "acc": statistics.fmean(by_seed["acc"]),
        "bwt": _mean(by_seed["bwt"]),
        "fwt": _mean(by_seed["fwt"]),
        "by_task": {label: statistics.fmean(row[task] for row in last) for task, label in enumerate(cells.plan.labels)},
        "by_task_intervals": {
            label: share_interval(scores)
            for label, scores in zip(cells.plan.labels, mean_scores(cells, name, seeds), strict=True)
        },
        "train_seconds": statistics.fmean(one.train_seconds for one in costs),
        "added_parameters": max(one.added_parameters for one in costs),
        "what": METHODS[name].what,
        "seeds": seeds,
        "in_domain": statistics.fmean(by_seed["in_domain"]),
        "acc_by_seed": by_seed["acc"],
        "bwt_by_seed": by_seed["bwt"],
        "acc_interval_over_items": item_interval(mean_scores(cells, name, seeds)),
        "acc_interval_over_seeds": seed_interval(by_seed["acc"]),
        "bwt_interval_over_seeds": seed_interval([value for value in by_seed["bwt"] if value is not None]),
        "forgetting": _forgetting(cells, results),
        "matrix": _mean_matrix(results),
        "text_nll": _mean(text),
        "tokens_per_second": _mean([one.tokens_per_second for one in costs]),
        "answer_seconds": statistics.fmean(one.answer_seconds for one in costs),
        "prompt_tokens": statistics.fmean(one.prompt_tokens for one in costs),
        "invocation_rate": invocation_rates(cells, name, seeds),
        "routed_right": routed_right(cells, name, seeds),
        "flags": flags(cells, name, seeds),
    }


def cost(cells: Cells, method: str, seed: int) -> Cost:
    """Cost of training to the end, and of an item after it."""
    last = len(cells.plan.tasks) - 1
    ends = {system_at(cells, method, last, task, seed) for task in range(last + 1)}
    trained = [cell for end in ends for cell in _trainings(cells, end)]
    by_examples = [cell for cell in trained if cell["tokens"] and "losses" in cell]
    seconds = sum(cell["seconds"] for cell in by_examples)
    scored = [
        cell
        for task, label in enumerate(cells.plan.labels)
        if (cell := cells.scored(system_at(cells, method, last, task, seed), label)) is not None
    ]
    items = sum(len(cell["scores"]) for cell in scored)
    return Cost(
        sum(cell["seconds"] for cell in trained),
        sum(_parameters(cells, end) for end in ends),
        sum(cell["tokens"] for cell in by_examples) / seconds if seconds else None,
        sum(cell["seconds"] for cell in scored) / items,
        sum(cell["prompt_tokens"] for cell in scored) / items,
    )


def claims(cells: Cells, complete: dict[str, dict[int, SeedResult]]) -> dict[str, Any]:
    """For each of ours: whether BWT is at least -1 point, and whether ACC is above every baseline.

    Baselines are compared on the same items, over the seeds that both have. While one has no complete seed, nothing is
    above every baseline. `surely` means that the 95% interval of each difference is above 0.
    """
    baselines = [name for name in METHODS if not is_ours(name)]
    missing = [name for name in baselines if name not in complete]
    found: dict[str, Any] = {}
    for name in (name for name in complete if is_ours(name)):
        against = {}
        for other in (other for other in baselines if other in complete):
            if shared := sorted(set(complete[name]) & set(complete[other])):
                against[other] = {**asdict(compare(cells, name, other, shared)), "seeds": shared}
        whole = len(against) == len(baselines)
        bwt = _mean([result.bwt for result in complete[name].values()])
        found[name] = {
            "bwt_at_least_minus_1_point": bwt is not None and bwt >= LEAST_BWT,
            "acc_above_every_baseline": whole and all(one["difference"] > 0 for one in against.values()),
            "surely_above_every_baseline": whole and all(one["interval"][0] > 0 for one in against.values()),
            "against": against,
        }
    return {"missing_baselines": missing, "ours": found}


def flags(cells: Cells, method: str, seeds: Sequence[int]) -> list[str]:
    """Signs that a training did not learn, with the training's name."""
    last = len(cells.plan.tasks) - 1
    ends = {system_at(cells, method, last, last, seed) for seed in seeds}
    noted = [(cell["system"], flag) for end in ends for cell in _trainings(cells, end) for flag in cell["flags"]]
    return sorted(f"{system}: {flag}" for system, flag in set(noted))


def invocation_rates(cells: Cells, method: str, seeds: Sequence[int]) -> dict[str, float | None]:
    """By task, the share of decision points at the end of training at which memory was woven; None without any."""
    last, rates = len(cells.plan.tasks) - 1, {}
    for task, label in enumerate(cells.plan.labels):
        found = [cells.scored(system_at(cells, method, last, task, seed), label) for seed in seeds]
        asked = sum(cell["asked"] for cell in found if cell is not None)
        rates[label] = sum(cell["invoked"] for cell in found if cell is not None) / asked if asked else None
    return rates


def routed_right(cells: Cells, method: str, seeds: Sequence[int]) -> dict[str, float] | None:
    """By task, the share of items that the router sent to the task's own memory; None of a method without a router."""
    last, shares = len(cells.plan.tasks) - 1, {}
    for task, label in enumerate(cells.plan.labels):
        right = asked = 0
        for system in (system_at(cells, method, last, task, seed) for seed in seeds):
            if not isinstance(system, Routed) or (cell := cells.scored(system, label)) is None:
                return None
            right += cell["served_by"].get(system.parts[task].name, 0)
            asked += len(cell["scores"])
        shares[label] = right / asked
    return shares


def _trainings(cells: Cells, end: System) -> list[Cell]:
    if isinstance(end, Routed):
        systems = tuple(dict.fromkeys(one for part in end.parts for one in part.lineage))
    else:
        systems = end.lineage if isinstance(end, Trained) else ()
    found = [cells.trained(system) for system in systems]
    return [cell for cell in found if cell is not None]


def _parameters(cells: Cells, end: System) -> int:
    if isinstance(end, Routed):
        return sum(_parameters(cells, part) for part in end.parts)
    trained = _trainings(cells, end)
    return int(trained[-1]["parameters"]) if trained else 0


def _text(cells: Cells, method: str, seed: int) -> Cell | None:
    last = len(cells.plan.tasks) - 1
    return cells.text(system_at(cells, method, last, last, seed))


def text_of_base(cells: Cells) -> float | None:
    """The bare base's loss on ordinary text, nats; None if it was not measured yet."""
    cell = cells.text(BareBase())
    return None if cell is None else float(cell["nll"])


def _forgetting(cells: Cells, results: Sequence[SeedResult]) -> dict[str, float | None] | None:
    """By task; None unless every seed has it."""
    rows = [result.forgotten for result in results if result.forgotten is not None]
    if len(rows) < len(results):
        return None
    return {label: _mean([row[task] for row in rows]) for task, label in enumerate(cells.plan.labels)}


def _mean_matrix(results: Sequence[SeedResult]) -> list[list[float | None]]:
    size = range(len(results[0].matrix))
    return [[_mean([result.matrix[row][column] for result in results]) for column in size] for row in size]


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless all are there."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
