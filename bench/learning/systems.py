"""Every system that answers items, as a value, and the methods that are made of them.

A trained system is its chain of training steps, so methods that begin alike share what they begin with: the first task
of `memgen-sequential`, `memgen-replay` and `memgen-isolated` is one training. Equal systems have equal names, and
what a system scored is kept under its name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench.learning.plan import LearningPlan

SFT, GRPO, TRIGGER = "sft", "grpo", "trigger"
LORA, WIDE_LORA = "lora", "lora-wide"
MEMORY, REREADING = "memory", "rereading"
"""Families of trained systems: LoRA of the base on q and v, or on all linear layers as memories have it; a memory, or
one whose weaver reads the prompt again."""
LORAS = (LORA, WIDE_LORA)


@dataclass(frozen=True)
class Link:
    """One training step of a chain."""

    kind: str
    """`sft`, `grpo` or `trigger`; the last is trained on all tasks of its chain."""
    task: int
    replay: bool = False
    times: int = 1
    """The plan's optimizer steps of SFT, so many times over."""

    @property
    def name(self) -> str:
        return f"{self.kind}{self.task}{'r' if self.replay else ''}{f'x{self.times}' if self.times > 1 else ''}"


@dataclass(frozen=True)
class BareBase:
    """The bare base."""

    name: str = "base"


@dataclass(frozen=True)
class Majority:
    """The most frequent expert answer of the item's task, whatever the question."""

    seed: int

    @property
    def name(self) -> str:
        return f"majority-s{self.seed}"


@dataclass(frozen=True)
class FewShot:
    """The base behind fixed training examples of the item's task, whose name it gets."""

    seed: int

    @property
    def name(self) -> str:
        return f"few-shot-s{self.seed}"


@dataclass(frozen=True)
class Retrieval:
    """The base behind the training examples most like the question, of all tasks up to `stage`."""

    seed: int
    stage: int

    @property
    def name(self) -> str:
        return f"retrieval-s{self.seed}-t{self.stage}"


@dataclass(frozen=True)
class Trained:
    """The base with one LoRA, or one memory, that went through a chain of training steps."""

    family: str
    seed: int
    chain: tuple[Link, ...]
    rate: float | None = None
    """Learning rate of LoRA SFT; None is the config's."""

    @property
    def name(self) -> str:
        rate = "" if self.rate is None else f"{self.rate:g}"
        return "-".join([f"{self.family}{rate}", f"s{self.seed}", *(link.name for link in self.chain)])

    @property
    def rereads(self) -> bool:
        """Whether its weaver reads the prompt again."""
        return self.family == REREADING

    @property
    def tasks(self) -> list[int]:
        """Tasks that it was trained on, ascending."""
        return sorted({link.task for link in self.chain})

    @property
    def parent(self) -> "Trained | None":
        """The system that the last link started from; None if it started afresh."""
        return Trained(self.family, self.seed, self.chain[:-1], self.rate) if len(self.chain) > 1 else None

    @property
    def lineage(self) -> "tuple[Trained, ...]":
        """Every system on the way to this one, itself last."""
        return (*(self.parent.lineage if self.parent else ()), self)


@dataclass(frozen=True)
class Routed:
    """A memory for each task up to `stage`, chosen by the prompt, or the bare base."""

    seed: int
    stage: int
    times: int = 1
    """Factor on the plan's steps of SFT, for each memory."""
    then: str | None = None
    """What each memory is trained by after SFT: `grpo`, `trigger` or nothing."""
    family: str = MEMORY
    warm: bool = False
    """Whether each memory starts from the weights of the one before it, which stays as it is and serves on."""

    @property
    def name(self) -> str:
        family = [] if self.family == MEMORY else [self.family]
        family += ["warm"] if self.warm else []
        routed = f"routedx{self.times}" if self.times > 1 else "routed"
        then = [self.then] if self.then else []
        return "-".join([*family, routed, *then, f"s{self.seed}", f"t{self.stage}"])

    @property
    def parts(self) -> tuple[Trained, ...]:
        return tuple(self._part(task) for task in range(self.stage + 1))

    def _part(self, task: int) -> Trained:
        learned = _chain(task, replay=False, times=self.times)[0 if self.warm else -1 :]
        then = (Link(self.then, task),) if self.then else ()
        return Trained(self.family, self.seed, (*learned, *then))


System = BareBase | Majority | FewShot | Retrieval | Trained | Routed


def has_memory(system: System) -> bool:
    """Whether what it answers depends on the recipe of memories."""
    return isinstance(system, Routed) or (isinstance(system, Trained) and system.family not in LORAS)


@dataclass(frozen=True)
class LearningMethod:
    """A way to go from task to task."""

    what: str
    after: Callable[[int, int, float], System]
    """The system after (stage, seed), with the learning rate of LoRA."""
    knows_task: bool = False
    """Whether it gets the name of an item's task; then it answers tasks to come as the bare base."""

    def system(self, stage: int, task: int, seed: int, rate: float) -> System:
        """What answers items of `task` once the tasks up to `stage` were learned; stage -1 is before all."""
        if stage < 0 or (self.knows_task and task > stage):
            return BareBase()
        return self.after(stage, seed, rate)


def _chain(stage: int, *, replay: bool, times: int = 1) -> tuple[Link, ...]:
    return tuple(Link(SFT, task, replay and task > 0, times) for task in range(stage + 1))


def _lora(*, replay: bool, times: int = 1, family: str = LORA) -> Callable[[int, int, float], System]:
    return lambda stage, seed, rate: Trained(family, seed, _chain(stage, replay=replay, times=times), rate)


def _memory(*, replay: bool) -> Callable[[int, int, float], System]:
    return lambda stage, seed, _: Trained(MEMORY, seed, _chain(stage, replay=replay))


def _routed(
    *, times: int = 1, then: str | None = None, family: str = MEMORY, warm: bool = False
) -> Callable[[int, int, float], System]:
    return lambda stage, seed, _: Routed(seed, stage, times, then, family, warm)


_ISOLATED = "a memory a task, weaver SFT, chosen from the prompt by the router"
_REREADING = f"{_ISOLATED}; weavers read the prompt again (`reread_tokens`)"
_LORA_REPLAY = "LoRA SFT of the base, earlier examples replayed"

METHODS = {
    "base": LearningMethod("the bare base", lambda *_: BareBase()),
    "majority": LearningMethod(
        "the most frequent expert answer of the task; it knows the task's name",
        lambda _, seed, __: Majority(seed),
        knows_task=True,
    ),
    "memgen-isolated": LearningMethod(_ISOLATED, _routed()),
    "memgen-isolated-long": LearningMethod(f"{_ISOLATED}; twice the steps", _routed(times=2)),
    "memgen-isolated-longer": LearningMethod(f"{_ISOLATED}; four times the steps", _routed(times=4)),
    "memgen-isolated-longest": LearningMethod(f"{_ISOLATED}; eight times the steps", _routed(times=8)),
    "memgen-rereading": LearningMethod(_REREADING, _routed(family=REREADING)),
    "memgen-rereading-long": LearningMethod(f"{_REREADING}; twice the steps", _routed(times=2, family=REREADING)),
    "memgen-rereading-longer": LearningMethod(
        f"{_REREADING}; four times the steps", _routed(times=4, family=REREADING)
    ),
    "memgen-rereading-warm-long": LearningMethod(
        f"{_REREADING}; twice the steps, each memory started from the one of the task before",
        _routed(times=2, family=REREADING, warm=True),
    ),
    "memgen-replay": LearningMethod("one memory, weaver SFT, earlier examples replayed", _memory(replay=True)),
    "lora-replay": LearningMethod(_LORA_REPLAY, _lora(replay=True)),
    "lora-replay-long": LearningMethod(f"{_LORA_REPLAY}; twice the steps", _lora(replay=True, times=2)),
    "lora-wide-replay-long": LearningMethod(
        f"{_LORA_REPLAY}; on all linear layers, twice the steps", _lora(replay=True, times=2, family=WIDE_LORA)
    ),
    "lora": LearningMethod("LoRA SFT of the base, task after task", _lora(replay=False)),
    "memgen-sequential": LearningMethod("one memory, weaver SFT, task after task", _memory(replay=False)),
    "few-shot": LearningMethod(
        "fixed training examples in the prompt; it knows the task's name",
        lambda _, seed, __: FewShot(seed),
        knows_task=True,
    ),
    "expel": LearningMethod(
        "training examples retrieved into the prompt by BM25",
        lambda stage, seed, _: Retrieval(seed, stage),
    ),
    "memgen-grpo": LearningMethod(f"{_ISOLATED}; then weaver GRPO of each memory on its task", _routed(then=GRPO)),
    "memgen-trigger": LearningMethod(f"{_ISOLATED}; then a trained trigger in each memory", _routed(then=TRIGGER)),
}
"""By name, in the order in which they are run."""


def is_ours(method: str) -> bool:
    """Whether a method trains memories; the others are baselines."""
    return method.startswith("memgen-")


def tuning_candidates(plan: LearningPlan) -> list[Trained]:
    """LoRA SFT of the first task at each rate; the best goes on as the first stage of seed 0."""
    return [Trained(LORA, 0, (Link(SFT, 0),), rate) for rate in plan.lora_rates]
