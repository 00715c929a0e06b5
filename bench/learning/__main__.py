"""`python -m bench.learning`: run what is not done yet, and write `learning.json` and the pages of results.

Stop it whenever you like: what is finished is kept in a file under `bench/results/learning`, a training goes on from
its last checkpoint.
"""

import argparse
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.learning.cells import RESULTS, Cells
from bench.learning.material import Material
from bench.learning.outcome import write_outcome
from bench.learning.plan import CHOICES, DEFAULT_TASKS, LearningPlan
from bench.learning.report import LAB_BOOK, PAGE, write_pages
from bench.learning.schedule import Unit, pending, run, seconds_left, units
from bench.learning.serving import SystemServing
from bench.learning.systems import METHODS
from bench.learning.training import Workplace
from bench.report import machine_of
from memgen.backbone.loading import load_backbone, named_dtype, prepare_process
from workers.code_version import code_version


def main() -> None:
    arguments = _arguments()
    if arguments.first_seed < 0:
        raise SystemExit(f"--first-seed is {arguments.first_seed}; expected 0 or more")
    plan = _plan(arguments)
    cells, console = Cells(plan, arguments.results), Console()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    if arguments.status:
        _show_status(console, cells, arguments.methods, seeds)
        return
    prepare_process(arguments.threads)
    backbone = load_backbone(plan.model, cache_dir=arguments.models, dtype=named_dtype(plan.dtype))
    where = {
        "machine": machine_of(backbone),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "code_version": code_version(),
    }
    cells.begin(backbone.revision, shlex.join(["python", "-m", "bench.learning", *sys.argv[1:]]), where)
    material = Material(plan, backbone, arguments.cache / "games")
    work = Workplace(plan, backbone, material, cells, arguments.cache / plan.digest)

    def show(unit: Unit, seconds: float, left: int) -> None:
        console.print(f"{unit.describe(cells)}: {seconds:.0f} s, {left} left", highlight=False)

    budget = arguments.budget_minutes
    left = run(
        SystemServing(work, arguments.prompt_bytes),
        arguments.methods,
        seeds,
        budget_seconds=None if budget is None else 60 * budget,
        on_unit=show,
    )
    cells.pack.compact()
    write_pages(cells, write_outcome(cells, seeds.stop), arguments.page, arguments.lab_book)
    pages = f"{arguments.page} and {arguments.lab_book}"
    console.print(f"{left} units left; results in {arguments.results.parent}, the pages are {pages}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=LearningPlan.model)
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models", help="converted models")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".memgen" / "bench-learning", help="weights, games")
    parser.add_argument("--results", type=Path, default=RESULTS, help="cells; learning.json is written beside it")
    parser.add_argument("--page", type=Path, default=PAGE, help="written whole")
    parser.add_argument("--lab-book", type=Path, default=LAB_BOOK, help="every table; its notes by hand are kept")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--tasks", nargs="+", choices=list(CHOICES), default=list(DEFAULT_TASKS), help="in this order")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="so that several processes may each do some")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default=LearningPlan.dtype, help="of the base's weights"
    )
    parser.add_argument("--steps", type=int, default=LearningPlan.steps, help="optimizer steps of SFT on each task")
    parser.add_argument("--items", type=int, default=LearningPlan.items, help="held-out items of each task")
    parser.add_argument(
        "--lora-rates", type=float, nargs="+", default=list(LearningPlan.lora_rates), help="one: not tuned"
    )
    parser.add_argument("--replay-share", type=float, default=LearningPlan.replay_share)
    parser.add_argument("--budget-minutes", type=float, help="begin no further piece of work after so long")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 is its own choice")
    parser.add_argument("--prompt-bytes", type=int, default=2 * 2**30, help="memory for prompts already read")
    parser.add_argument("--status", action="store_true", help="say what is done and what is left, and do nothing")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> LearningPlan:
    return replace(
        LearningPlan(),
        model=arguments.model,
        dtype=arguments.dtype,
        tasks=tuple(CHOICES[label] for label in arguments.tasks),
        steps=arguments.steps,
        items=arguments.items,
        lora_rates=tuple(arguments.lora_rates),
        replay_share=arguments.replay_share,
    )


def _show_status(console: Console, cells: Cells, methods: list[str], seeds: Sequence[int]) -> None:
    """Units done and in all by kind of work; an estimate of what is left, from the seconds of what is done."""
    every = units(cells, methods, seeds)
    open_units = set(pending(cells, methods, seeds))
    table = Table("work", "done", "of", title=f"plan {cells.plan.digest}")
    for action, count in Counter(unit.action for unit in every).items():
        left = sum(unit.action == action for unit in open_units)
        table.add_row(action, str(count - left), str(count))
    console.print(table)
    seconds, unknown = seconds_left(cells, methods, seeds)
    console.print(
        f"{len(open_units)} units left; those of kinds already timed take about {seconds / 3600:.1f} hours here "
        f"({platform.node()}); {unknown} are of kinds not timed yet",
        highlight=False,
    )


if __name__ == "__main__":
    main()
