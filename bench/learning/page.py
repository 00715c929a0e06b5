"""`docs/results.md`: one table, one figure, and sentences whose every figure comes from the results.

What can't be said of these results is left out; what they do not decide stands beside what they do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.learning.cells import Cells
from bench.learning.markdown import FEWEST_SEEDS, interval, interval_over_seeds, points, share, table
from bench.learning.metrics import last_scores, seed_interval
from bench.learning.outcome import text_of_base
from bench.learning.systems import is_ours

Document = dict[str, Any]
"""What `bench.learning.outcome.outcome` returns."""


@dataclass(frozen=True)
class SeparateLoras:
    """Scores of a LoRA that was trained on one task alone, beside one of our methods. No method has them."""

    plan: str
    """Digest of the plan whose items were answered."""
    method: str
    """Ours, of as many steps."""
    scores: dict[int, dict[str, float]]
    """By seed and task; the first seed has every task."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "SeparateLoras":
        """Read the document of `bench/results/lora_a_task.json`."""
        scores = {int(seed): by_task for seed, by_task in document["scores_by_seed"].items()}
        return cls(document["plan"], document["method"], scores)


def page_text(cells: Cells, document: Document, separate: SeparateLoras | None, figure: str | None) -> str:
    """The whole page; `figure` is the picture's path as the page names it."""
    sentences = [
        _claim(cells, document),
        _other_methods(document),
        _isolation(document),
        _price(cells, document),
        _separate_loras(cells, document, separate),
    ]
    parts = [
        _opening(cells, document),
        _methods(document),
        *([f"![ACC of every method, with a dot for each seed]({figure})"] if figure else []),
        "## What holds, and what does not",
        "\n".join(f"- {sentence}" for sentence in sentences if sentence),
        _links(cells),
        _last_line(cells),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def best_of_ours(document: Document) -> str | None:
    """The method of ours for which both claims hold: the one with the most seeds, of those the highest ACC."""
    methods = document["methods"]
    return max(_held(document), key=lambda name: (len(methods[name]["seeds"]), methods[name]["acc"]), default=None)


def strongest_baseline(document: Document, ours: str) -> str | None:
    """The baseline from which `ours` differs least, or by which it is beaten most."""
    against = document["claims"]["ours"][ours]["against"]
    return min(against, key=lambda name: against[name]["difference"], default=None)


def _opening(cells: Cells, document: Document) -> str:
    plan = cells.plan
    tasks = ", ".join(f"{task.label} ({task.domain})" for task in plan.tasks)
    machines = "; ".join(sorted({where["machine"] for where in document["where"]}))
    left = document["units_left"]
    state = "" if not left else f" {left} trainings and evaluations that the plan lists have not been run."
    return (
        "# Results: what a memory learns and forgets\n\n"
        f"{plan.model} in {plan.dtype} learns {len(plan.tasks)} tasks one after the other: {tasks}. Each is answered "
        f"on {plan.items} held-out items, the same for every method. ACC is the mean score over the tasks at the end, "
        "BWT the mean change of earlier tasks since they were learned. Intervals are of 95%: in brackets over items "
        "(bootstrap), and over seeds (Student's t, cut at the ends of the scale) where there are three. "
        "Training is the seconds of all tasks, on "
        f"{machines}, which was shared, so seconds are rough.{state}"
    )


def _methods(document: Document) -> str:
    rows = [
        (
            f"**{name}**" if is_ours(name) else name,
            f"{share(found['acc'])} {_brackets(found['acc_interval_over_items'], share)}",
            interval_over_seeds(found["acc_interval_over_seeds"], len(found["seeds"]), share, (0, 1)),
            points(found["bwt"]),
            interval_over_seeds(found["bwt_interval_over_seeds"], len(found["seeds"]), points, (-1, 1)),
            f"{found['train_seconds']:,.0f}",
            str(len(found["seeds"])),
            found["what"],
        )
        for name, found in sorted(document["methods"].items(), key=lambda pair: -pair[1]["acc"])
    ]
    head = ("method", "ACC", "ACC over seeds", "BWT", "BWT over seeds", "training, s", "seeds", "what it is")
    return table(head, rows) if rows else "No method is complete yet."


def _claim(cells: Cells, document: Document) -> str:
    """What the best of ours reaches, beside the strongest baseline."""
    best = best_of_ours(document)
    other = strongest_baseline(document, best) if best else None
    if best is None or other is None:
        return (
            "**No method of ours meets both claims**, that it forgets at most one point and stands above every "
            "baseline of the plan."
        )
    ours, theirs = document["methods"][best], document["methods"][other]
    against = document["claims"]["ours"][best]["against"][other]
    differences = [_at_end(cells, best, seed) - _at_end(cells, other, seed) for seed in against["seeds"]]
    by_seed = ", ".join(points(one) for one in differences)
    also = [f"`{name}` ({share(document['methods'][name]['acc'])})" for name in _held(document) if name != best]
    return (
        f"**`{best}` meets both claims:** it forgets at most one point and stands above every baseline of the plan"
        f"{f'; so do {_listed(also)}' if len(also) > 1 else f'; so does {also[0]}' if also else ''}. `{best}` ends at "
        f"ACC {share(ours['acc'])} with BWT {points(ours['bwt'])} after {ours['train_seconds']:,.0f} s of training; "
        f"the strongest baseline, `{other}`, ends at {share(theirs['acc'])} with BWT {points(theirs['bwt'])} after "
        f"{theirs['train_seconds']:,.0f} s. The difference is {points(against['difference'])} points "
        f"[{interval(against['interval'], points)} over items]; by seed: {by_seed}{_over_seeds(differences)}."
    )


def _over_seeds(differences: Sequence[float]) -> str:
    """How sure the mean of a few seeds' differences is."""
    limits = seed_interval(differences)
    if limits is None or len(differences) < FEWEST_SEEDS:
        return ", which is too few for an interval"
    doubt = ", so these seeds alone do not settle it" if limits[0] <= 0 <= limits[1] else ""
    return f", over seeds {interval(limits, points)}{doubt}"


def _other_methods(document: Document) -> str:
    """The methods of ours for which one claim or both fail."""
    claims, methods = document["claims"]["ours"], document["methods"]
    forgetting = [name for name, found in claims.items() if not _forgets_little(found)]
    below = [name for name, found in claims.items() if _forgets_little(found) and not _above_all(found)]
    parts = []
    if below:
        listed = _listed([f"`{name}` ({share(methods[name]['acc'])})" for name in below])
        parts.append(f"forget at most one point but do not stand above every baseline: {listed}")
    if forgetting:
        listed = _listed([f"`{name}` ({points(methods[name]['bwt'])})" for name in forgetting])
        parts.append(f"lose more than one point of BWT: {listed}")
    return f"**The other memories meet one of the claims, or none.** These {'; these '.join(parts)}." if parts else ""


def _isolation(document: Document) -> str:
    """What keeps earlier tasks, by BWT of methods that share one memory or one LoRA."""
    bwt = {name: found["bwt"] for name, found in document["methods"].items() if found["bwt"] is not None}
    one_memory, one_lora = bwt.get("memgen-sequential"), bwt.get("lora")
    if one_memory is None or one_lora is None:
        return ""
    replayed = {name: bwt[name] for name in ("memgen-replay", "lora-replay") if name in bwt}
    with_replay = _listed([f"{points(value)} in `{name}`" for name, value in replayed.items()])
    return (
        "**A memory for each task keeps what was learned, not the frozen base.** One memory trained on task after task "
        f"has BWT {points(one_memory)}, one LoRA of the base {points(one_lora)}"
        f"{f'; with earlier examples replayed it is {with_replay}' if with_replay else ''}. Where the router chooses "
        "among memories, prompts of an earlier task reach the same weights as before, so that only routing could lose "
        "anything; for the same reason nothing that was learned helps a later task."
    )


def _price(cells: Cells, document: Document) -> str:
    """What an answer and ordinary text cost."""
    best, base, methods = best_of_ours(document), text_of_base(cells), document["methods"]
    other = strongest_baseline(document, best) if best else None
    if best is None or other is None or base is None:
        return ""
    ours, theirs = methods[best], methods[other]
    if ours["text_nll"] is None or theirs["text_nll"] is None:
        return ""
    plain = min((name for name in methods if is_ours(name)), key=lambda name: float(methods[name]["answer_seconds"]))
    return (
        f"**Answering is slower.** An item takes {ours['answer_seconds']:.2f} s with `{best}`, "
        f"{theirs['answer_seconds']:.2f} s with `{other}` and {methods[plain]['answer_seconds']:.2f} s with `{plain}`, "
        "the fastest of ours. "
        f"Ordinary text, which the router sends to the bare base, costs {ours['text_nll'] - base:+.2f} nats a token "
        f"with `{best}` and {theirs['text_nll'] - base:+.2f} with `{other}`."
    )


def _separate_loras(cells: Cells, document: Document, separate: SeparateLoras | None) -> str:
    """The doubt: routing would serve LoRAs of the base as well."""
    opening = (
        "**What isolation alone would do for LoRA is open.** A LoRA of the base could be kept for each task and chosen "
        "by the same router; that is none of these methods"
    )
    if separate is None or separate.plan != document["plan"] or separate.method not in document["methods"]:
        return f"{opening}, and was not measured."
    labels, method = document["tasks"], separate.method
    seed, scores = next(iter(separate.scores.items()))
    ours = {label: _on_task(cells, method, seed, label) for label in labels}
    widest = max(labels, key=lambda label: scores[label] - ours[label])
    gaps = ", ".join(
        f"{share(by_task[widest])} and {share(_on_task(cells, method, one, widest))} on seed {one}"
        for one, by_task in separate.scores.items()
        if widest in by_task
    )
    return (
        f"{opening}. Such LoRAs would score higher: trained on one task alone, in as many steps, LoRA on all linear "
        f"layers scores "
        f"{share(_mean(scores[label] for label in labels))} on average where the memories of `{method}` score "
        f"{share(_mean(ours.values()))} (seed {seed}; these LoRAs were trained and scored apart from the methods "
        f"above). The widest gap is on {widest}: {gaps}."
    )


def _links(cells: Cells) -> str:
    path = f"../bench/results/learning/{cells.pack.path.name}"
    return (
        "More: [every table, run and finding](../research/learning.md), [the router](../research/router.md), "
        "[the method](method.md); "
        f"figures in [learning.json](../bench/results/learning.json), every item's answer and score in "
        f"[{cells.pack.path.name}]({path})."
    )


def _last_line(cells: Cells) -> str:
    made = cells.made
    return (
        "Written whole by `python -m bench.learning.report` from results of "
        f"{made['date'] or 'an unknown date'}, commit {made['commit'] or 'unknown'}."
    )


def _held(document: Document) -> list[str]:
    """The methods of ours for which both claims hold."""
    return [name for name, found in document["claims"]["ours"].items() if _forgets_little(found) and _above_all(found)]


def _forgets_little(found: dict[str, Any]) -> bool:
    return bool(found["bwt_at_least_minus_1_point"])


def _above_all(found: dict[str, Any]) -> bool:
    return bool(found["acc_above_every_baseline"])


def _at_end(cells: Cells, method: str, seed: int) -> float:
    """ACC of one seed."""
    return _mean(_on_task(cells, method, seed, label) for label in cells.plan.labels)


def _on_task(cells: Cells, method: str, seed: int, label: str) -> float:
    return float(last_scores(cells, method, seed, cells.plan.labels.index(label)).mean())


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


def _brackets(limits: Sequence[float], show: Any) -> str:
    return f"[{interval(limits, show)}]"
