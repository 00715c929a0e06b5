"""The sections of `research/learning.md`, in Markdown: long tables, and sentences that follow from them."""

import json
from collections.abc import Sequence
from typing import Any

from bench.learning.cells import Cells
from bench.learning.markdown import interval, interval_over_seeds, points, share, table
from bench.learning.outcome import LEAST_BWT, text_of_base
from bench.learning.systems import METHODS, is_ours
from bench.plain_lora import SHAPE


def heading(cells: Cells, document: dict[str, Any]) -> str:
    """What was run, how much of it is done, and by which commands."""
    tasks = ", ".join(f"{task.label} ({task.domain})" for task in cells.plan.tasks)
    commands = "\n".join(document["commands"]) or "python -m bench.learning"
    left = document["units_left"]
    state = (
        "All trainings and evaluations of the plan are done."
        if not left
        else f"**Not finished: {left} trainings and evaluations that the plan lists have not been run.**"
    )
    incomplete = ", ".join(document["incomplete"])
    missing = f" Not complete for any seed, and left out: {incomplete}." if incomplete else ""
    return (
        "# What a memory learns and forgets: every table\n\n"
        "The lab book behind [docs/results.md](../docs/results.md).\n\n"
        f"{cells.plan.model} in {cells.plan.dtype}, tasks in the order {tasks}; "
        f"{cells.plan.items} held-out items a task, {cells.plan.steps} optimizer steps of "
        f"{cells.plan.batch_size} examples on each. {state}{missing} Numbers in "
        "[learning.json](../bench/results/learning.json), every item's score in "
        f"[learning/{cells.pack.path.name}](../bench/results/learning/{cells.pack.path.name}). Written by "
        "`python -m bench.learning.report` from what ran as\n\n"
        f"```\n{commands}\n```"
    )


def claims(document: dict[str, Any]) -> str:
    """Each claim with what the numbers say of it."""
    claims = document["claims"]
    lines = ["## Do the claims hold?", "", "The claims: BWT of at least -1 point, and ACC above every baseline.", ""]
    if claims["missing_baselines"]:
        missing = ", ".join(claims["missing_baselines"])
        lines += [f"Baselines without complete results, so that nothing is claimed against them: {missing}.", ""]
    for name, found in claims["ours"].items():
        method = document["methods"][name]
        lines.append(
            f"- **{name}**: BWT {points(method['bwt'])} ({_holds(found['bwt_at_least_minus_1_point'])}; bar "
            f"{points(LEAST_BWT)}); ACC {share(method['acc'])}, {_above(found, claims['missing_baselines'])}."
        )
    both = [
        name
        for name, found in claims["ours"].items()
        if found["bwt_at_least_minus_1_point"] and found["acc_above_every_baseline"]
    ]
    lines += ["", f"Both hold for: {', '.join(both) or 'none of ours'}.", "", *_pairs(document)]
    return "\n".join(lines)


def _above(found: dict[str, Any], missing: Sequence[str]) -> str:
    if not found["against"]:
        return "compared with no baseline yet"
    beaten_by = [name for name, one in found["against"].items() if one["difference"] <= 0]
    unsure = [name for name, one in found["against"].items() if one["difference"] > 0 >= one["interval"][0]]
    if beaten_by:
        return f"not above {', '.join(beaten_by)} (does not hold)"
    if missing:
        return "above every baseline that was measured, which are not all (open)"
    if unsure:
        return f"above every baseline (holds), but the 95% interval over items includes 0 against {', '.join(unsure)}"
    return "above every baseline, each time with a 95% interval over items above 0 (holds)"


def _pairs(document: dict[str, Any]) -> list[str]:
    ours = document["claims"]["ours"]
    seconds = {name: found["train_seconds"] for name, found in document["methods"].items()}
    rows = [
        (
            name,
            other,
            points(one["difference"]),
            interval(one["interval"], points),
            f"{one['better']} / {one['worse']}",
            f"{one['p_value']:.2g}",
            f"{seconds[name]:.0f} / {seconds[other]:.0f}",
        )
        for name, found in ours.items()
        for other, one in found["against"].items()
    ]
    head = (
        "ours",
        "baseline",
        "ACC difference",
        "95% over items",
        "only ours / only baseline",
        "McNemar p",
        "training, s",
    )
    note = (
        "\nSame items on both sides, means over the seeds that both have; the bootstrap draws items within each task. "
        "The counts are of items of the first such seed that only one side solved wholly. P values are not corrected "
        "for the number of comparisons. Training: seconds of ours and of the baseline, means over each one's seeds."
    )
    return [table(head, rows), note]


def all_methods(document: dict[str, Any]) -> str:
    """ACC, BWT and FWT of every method with their intervals."""
    rows = []
    for name, found in sorted(document["methods"].items(), key=lambda pair: -pair[1]["acc"]):
        rows.append(
            (
                f"**{name}**" if is_ours(name) else name,
                share(found["acc"]),
                interval(found["acc_interval_over_items"], share),
                interval_over_seeds(found["acc_interval_over_seeds"], len(found["seeds"]), share, (0, 1)),
                points(found["bwt"]),
                interval_over_seeds(found["bwt_interval_over_seeds"], len(found["seeds"]), points, (-1, 1)),
                points(found["fwt"]),
                share(found["in_domain"]),
                str(len(found["seeds"])),
            )
        )
    head = ("method", "ACC", "over items", "over seeds", "BWT", "over seeds", "FWT", "in-domain", "seeds")
    listing = "\n".join(f"- {name}: {METHODS[name].what}" for name in document["methods"])
    return (
        "## All methods\n\n"
        f"{table(head, rows)}\n\n"
        "ACC is the mean over tasks at the end, BWT the mean change of earlier tasks since they were learned, FWT the "
        "mean gain over the bare base on a task just before it is learned, in-domain the mean just after. Intervals "
        "are of 95%: bootstrap over items, Student's t over at least three seeds, cut at the ends of the scale. "
        "A method that knows the task's name answers tasks to "
        "come as the bare base, so its BWT and FWT are 0 by construction.\n\n"
        f"{listing}"
    )


def by_task(document: dict[str, Any]) -> str:
    """Scores, forgetting, insertions and routing by task."""
    labels = document["tasks"]
    rows = [
        (name, *(_with_interval(found, label) for label in labels), *_forgotten(found, labels))
        for name, found in document["methods"].items()
    ]
    head = ("method", *labels, *(f"forgotten: {label}" for label in labels[:-1]))
    woven = [
        (name, *(share(found["invocation_rate"][label]) for label in labels))
        for name, found in document["methods"].items()
        if is_ours(name)
    ]
    routed = [
        (name, *(share(found["routed_right"][label]) for label in labels))
        for name, found in document["methods"].items()
        if found["routed_right"]
    ]
    routing = (
        f"\n\nShare of items that were routed to the memory of their task:\n\n{table(('method', *labels), routed)}"
        if routed
        else ""
    )
    return (
        f"## At the end, by task\n\n{table(head, rows)}\n\n"
        "In brackets 95% over items (Wilson, of means over seeds). Forgotten is the best score since the task was "
        "learned less the last, in points.\n\n"
        f"Share of decision points at which memory was woven:\n\n{table(('method', *labels), woven)}"
        f"{routing}"
    )


def _with_interval(found: dict[str, Any], label: str) -> str:
    low, high = found["by_task_intervals"][label]
    return f"{share(found['by_task'][label])} [{100 * low:.0f}-{100 * high:.0f}]"


def _forgotten(found: dict[str, Any], labels: Sequence[str]) -> list[str]:
    by_task = found["forgetting"] or {}
    return [points(by_task.get(label)) for label in labels[:-1]]


def matrices(document: dict[str, Any]) -> str:
    """The cross-domain matrices as text."""
    parts = ["## From task to task", "", "Rows: after learning a task. Columns: score on each task. Means over seeds."]
    head = ("after", *document["tasks"])
    for name, found in document["methods"].items():
        if name in ("base", "majority"):
            continue
        rows = [
            (label, *(share(value) for value in row))
            for label, row in zip(document["tasks"], found["matrix"], strict=True)
        ]
        parts += ["", f"### {name}", "", table(head, rows)]
    return "\n".join(parts)


def costs(cells: Cells, document: dict[str, Any]) -> str:
    """Training, parameters, prompts and ordinary text of every method."""
    base = text_of_base(cells)
    rows = []
    for name, found in document["methods"].items():
        loss = found["text_nll"]
        rows.append(
            (
                name,
                f"{found['train_seconds']:.0f}",
                "" if found["tokens_per_second"] is None else f"{found['tokens_per_second']:.0f}",
                f"{found['added_parameters']:,}",
                f"{found['prompt_tokens']:.0f}",
                f"{found['answer_seconds']:.2f}",
                "" if loss is None else f"{loss:.3f}",
                "" if loss is None or base is None else f"{loss - base:+.3f}",
            )
        )
    head = (
        "method",
        "training, s",
        "tokens/s",
        "added parameters",
        "prompt tokens an item",
        "s an item",
        "text loss, nats",
        "less the base's",
    )
    return (
        "## What it costs, and what it does to ordinary text\n\n"
        f"{table(head, rows)}\n\n"
        "Training is the sum over all tasks, without evaluation and without the runs that chose the rate of LoRA SFT; "
        "tokens/s are prompt and answer tokens of SFT. Text loss is the mean token loss of the system as it is served, "
        f"asked to continue {cells.plan.texts} pieces of ordinary text: conversation, Python's documentation, "
        "descriptions of packages. A machine that is shared makes seconds uncertain."
    )


def failures(document: dict[str, Any]) -> str:
    """What was not learned or was forgotten, and the flags of trainings."""
    lines = ["## What failed", ""]
    for name, found in document["methods"].items():
        labels = document["tasks"]
        row = [found["by_task"][label] for label in labels]
        unlearned = [
            label
            for label, value, base in zip(labels, row, document["base"], strict=True)
            if name != "base" and base is not None and value <= base
        ]
        if unlearned:
            lines.append(f"- {name}: at the end no better than the bare base on {', '.join(unlearned)}.")
        if found["bwt"] is not None and found["bwt"] < LEAST_BWT:
            lines.append(f"- {name}: forgets, BWT {points(found['bwt'])}.")
    noted = sorted({flag for found in document["methods"].values() for flag in found["flags"]})
    lines += ["", "What trainings reported of themselves:", "", *(f"- {flag}" for flag in noted)] if noted else []
    return "\n".join(lines if len(lines) > 2 else [*lines, "Nothing that these numbers show."])


def how(cells: Cells, document: dict[str, Any]) -> str:
    """Tasks, steps and rates behind the figures."""
    plan = cells.plan
    rates = ", ".join(f"{rate:g}" for rate in plan.lora_rates)
    chosen = "not chosen yet" if document["lora_rate"] is None else f"{document['lora_rate']:g}"
    lora_rate = f"{rates}, not chosen on these tasks"
    if len(plan.lora_rates) > 1:
        lora_rate = (
            f"the best of {rates} on {plan.validation_items} training items of {plan.labels[0]} that are not trained "
            f"on, for seed 0: {chosen}"
        )
    tasks = [
        (task.label, task.domain, f"`{task.name}`", f"`{json.dumps(dict(task.options))}`", str(task.training_items))
        for task in plan.tasks
    ]
    return (
        "## How it was measured\n\n"
        f"{table(('task', 'domain', 'of the catalogue', 'options', 'training items'), tasks)}\n\n"
        f"LoRA SFT of the base (PEFT) and the memory's weaver take the same examples in the same batches and order: "
        f"{plan.steps} steps of {plan.batch_size} a task, the same schedule and clipping; LoRA of rank "
        f"{SHAPE.rank}, the base's on {', '.join(SHAPE.target_modules)}, the weaver's on "
        f"{', '.join(plan.memory_config().target_modules)}. Where a weaver reads the prompt "
        f"again (`reread_tokens`), the last {plan.reread_tokens} tokens of it. The "
        f"learning rate of LoRA SFT is {lora_rate}. The memory's is the default, chosen on other "
        f"tasks ([method.md](method.md)). With replay, {plan.replay_share:.0%} of the examples of a later task are "
        f"of earlier ones, {plan.replay_examples} kept of each. Weaver GRPO: {plan.grpo_steps} steps of "
        f"{plan.grpo_items} items x {plan.group_size} rollouts a task, on top of SFT. Trigger GRPO: "
        f"{plan.trigger_steps} steps of {plan.trigger_items} x {plan.group_size}, on the memory's task"
        f"{f' and on {plan.outside.label}, which nobody learns' if plan.outside else ''}. Prompts take "
        f"{plan.demonstrations} demonstrations and {plan.demonstration_tokens} tokens of them at most. A seed changes "
        "the training items, their order and the start of every weight; held-out items stay. Answers are greedy. LoRA "
        "SFT is served by the same engine, its factors in float32 beside the weights."
    )


def _holds(yes: bool) -> str:
    return "holds" if yes else "does not hold"
