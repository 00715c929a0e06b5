"""What each part of a version's memory is worth: the same items answered with less of it, in one call.

name                what is changed, the weights being what they are
as trained          nothing
latents k           of each insertion the first k latents stay; queries look only back, so that is weaving with k
budget n            n insertions may follow the prompt's
prompt only         none may
interleaved only    none at the prompt's end
trigger always      every decision point weaves, while the budget lasts
trigger never       none does: the bare base
trigger random      as many points as the version's trigger picks, at the prompt's end and inside answers, but any
without cues        the weaver reads no past experience
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from memgen.analysis.items import ReadAnalysisItem
from memgen.analysis.runs import AnalysisRun, Change, Outcome, run_items
from memgen.config import MemoryConfig
from memgen.config_mapping import FromMapping, require
from memgen.generation.intervals import paired_interval, wilson_interval
from memgen.generation.interventions import Intervention
from memgen.generation.requests import GenerationRequest
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory

AS_TRAINED = "as trained"
_RANDOM = "trigger random"


@dataclass(frozen=True)
class AblationSettings(FromMapping):
    """What is tried.

    Raises:
        ConfigError: a value is outside its range.
    """

    latents: tuple[int, ...] = ()
    """Latents that stay of each insertion; empty tries half of the config's, half of that, and so on down to 1."""
    budgets: tuple[int, ...] = ()
    """Insertions that may follow the prompt's; empty tries half of the config's, and none (`prompt only`)."""
    random_draws: int = 3
    """Runs with a random trigger."""

    def __post_init__(self) -> None:
        require(all(k >= 1 for k in self.latents), f"latents are {self.latents}; expected numbers from 1")
        require(all(n >= 0 for n in self.budgets), f"budgets are {self.budgets}; expected numbers from 0")
        require(self.random_draws >= 1, f"random_draws is {self.random_draws}; expected at least 1")


@dataclass(frozen=True)
class Ablation:
    """The scores with one part changed."""

    name: str
    accuracy: float
    """The mean, where there are several runs."""
    interval: tuple[float, float]
    """95%, over items."""
    difference: float
    """From `as trained`."""
    difference_interval: tuple[float, float]
    """95%, paired by item."""
    insertions_per_answer: float
    latents_per_answer: float
    tasks: dict[str, float]
    """Accuracy by task."""
    runs: int = 1


@dataclass(frozen=True)
class AblationReport:
    items: int
    """Items that were judged in every run."""
    rows: tuple[Ablation, ...]
    """`as trained` first."""
    skipped: dict[str, str]
    """What would change nothing of this version, and why."""


def ablate(
    host: AdapterHost,
    memories: Sequence[str | None],
    items: Sequence[ReadAnalysisItem],
    settings: AblationSettings = AblationSettings(),
    *,
    run: AnalysisRun,
) -> AblationReport:
    """Answer the items as trained, and once more for every part that can be changed.

    Raises:
        ConfigError: as `run_items`, or no item can be judged.
        UnknownGrader, SandboxUnavailable: as `memgen.evaluation.accuracy.score_items`.
    """

    def answered(name: str, change: Change) -> list[Outcome]:
        parts = run_items(host, memories, items, run, phase=f"ablate {name}", change=change)
        return [outcome for some in parts for outcome in some]

    woven = [host.memories[name] for name in dict.fromkeys(memories) if name is not None]
    trained = answered(AS_TRAINED, lambda _, request: request)
    rates = _rates(trained)
    changes, skipped = _changes(woven, settings, rates)
    found = {AS_TRAINED: [trained]} | {name: [answered(name, change)] for name, change in changes.items()}
    if _RANDOM not in skipped:
        draws = range(settings.random_draws)
        found[_RANDOM] = [answered(f"{_RANDOM} {n}", _random_trigger(rates, (run.seed, n))) for n in draws]
    places = range(len(items))
    judged = [place for place in places if all(outcomes[place].judged for runs in found.values() for outcomes in runs)]
    require(bool(judged), f"none of {len(items)} items can be judged; the items' notes say why")
    rows = tuple(_row(name, runs, trained, judged) for name, runs in found.items())
    return AblationReport(len(judged), rows, skipped)


def _changes(
    memories: Sequence[Memory], settings: AblationSettings, rates: tuple[float, float]
) -> tuple[dict[str, Change], dict[str, str]]:
    """What there is to change by its name, but for the random trigger; and what would change nothing, with why."""
    configs = [memory.config for memory in memories]
    if not any(config.trigger != "never" for config in configs):
        return {}, dict.fromkeys(("latents", "budget", "trigger", _RANDOM, "cues"), "the version never weaves")
    changes: dict[str, Change] = {}
    skipped: dict[str, str] = {}
    most = max(max(config.latents, config.inference_latents) for config in configs)
    for kept in settings.latents or _halves(most):
        if kept < most:
            changes[f"latents {kept}"] = _change(Intervention(keep=_First(kept)))
        else:
            skipped[f"latents {kept}"] = f"the version weaves {most} at most"
    _change_budgets(configs, settings, changes, skipped)
    learned = any(memory.decides in ("lora", "head") for memory in memories)
    if learned:
        changes["trigger always"] = _change(Intervention(decide=lambda _: True))
    else:
        skipped["trigger always"] = "the version's trigger is always"
    changes["trigger never"] = _change(Intervention(decide=lambda _: False))
    if all(rate in (0.0, 1.0) for rate in rates):
        skipped[_RANDOM] = "the version's trigger leaves nothing to chance: it weaves always or never"
    if any(memory.recall is not None for memory in memories):
        changes["without cues"] = lambda _, request: replace(request, cue_ids=())
    else:
        skipped["without cues"] = "the version's weaver reads none"
    return changes, skipped


def _change_budgets(
    configs: Sequence[MemoryConfig], settings: AblationSettings, changes: dict[str, Change], skipped: dict[str, str]
) -> None:
    most = max(config.max_insertions for config in configs)
    for budget in settings.budgets or (*_halves(most), 0):
        name = f"budget {budget}" if budget else "prompt only"
        if budget < most:
            changes[name] = _change(Intervention(budget=budget))
        else:
            skipped[name] = f"the version's budget is {most}"
    if most:
        changes["interleaved only"] = _change(Intervention(decide=lambda point: None if point else False))
    else:
        skipped["interleaved only"] = "the version weaves at the prompt's end only"


def _change(intervention: Intervention) -> Change:
    return lambda _, request: replace(request, intervention=intervention)


@dataclass(frozen=True)
class _First:
    """Keeps so many latents of each insertion."""

    count: int

    def __call__(self, _: int, latents: Tensor) -> list[bool]:
        return [number < self.count for number in range(len(latents))]


def _random_trigger(rates: tuple[float, float], seeds: tuple[int, int]) -> Change:
    """Weaves at decision points with the chances `rates`, at the prompt's end and behind it."""

    def change(place: int, request: GenerationRequest) -> GenerationRequest:
        decide = partial(_picks, np.random.default_rng((*seeds, place)), rates)
        return replace(request, intervention=Intervention(decide=decide))

    return change


def _picks(rng: np.random.Generator, rates: tuple[float, float], point: int) -> bool:
    return bool(rng.random() < rates[min(point, 1)])


def _rates(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Shares of the decision points at which memory was woven: of those at a prompt's end, and of the others."""
    first = [outcome.decisions[0].invoked for outcome in outcomes if outcome.decisions]
    later = [decision.invoked for outcome in outcomes for decision in outcome.decisions[1:]]
    return _share(first), _share(later)


def _share(points: Sequence[bool]) -> float:
    return sum(points) / len(points) if points else 0.0


def _halves(most: int) -> tuple[int, ...]:
    """For 16: 8, 4, 2, 1."""
    found = []
    while (most := most // 2) >= 1:
        found.append(most)
    return tuple(found)


def _row(name: str, runs: Sequence[Sequence[Outcome]], trained: Sequence[Outcome], judged: Sequence[int]) -> Ablation:
    rights = [[outcomes[place].right for place in judged] for outcomes in runs]
    right = np.array(rights, dtype=np.float64).mean(axis=0)
    before = np.array([trained[place].right for place in judged], dtype=np.float64)
    moved, count = right - before, len(judged)
    answers = [outcomes[place] for outcomes in runs for place in judged]
    by_task: dict[str, list[float]] = {}
    for place, share in zip(judged, right.tolist(), strict=True):
        by_task.setdefault(trained[place].item.item.task, []).append(share)
    return Ablation(
        name,
        float(right.mean()),
        wilson_interval(float(right.sum()), count),
        float(moved.mean()),
        paired_interval(float(-moved[moved < 0].sum()), float(moved[moved > 0].sum()), count),
        sum(answer.insertions for answer in answers) / len(answers),
        sum(answer.woven for answer in answers) / len(answers),
        {task: sum(shares) / len(shares) for task, shares in by_task.items()},
        len(runs),
    )
