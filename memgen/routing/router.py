"""Which task's memory should serve a prompt, or none: each task is a region of the frozen base's own states.

The state of a prompt is what the base makes of all its tokens but the last: `Prefix.state`, the last hidden state that
prefill computes anyway, the same for every memory, batch and cache. A task's region is learned from states of its own
prompts alone,

    m, C     their mean; their covariance, kept along its R largest directions
    d(s)^2   (s - m)^T S^-1 (s - m),  S = (1 - a) C + a tr(C)/H I   (Mahalanobis; Lee et al., arXiv 1807.03888)
    r        the distance within which a stated share of the task's prompts lies (cross-conformal; Vovk, arXiv
             1208.0806), yet at most twice their median

and a prompt goes to the bare base if d > r for every task; else, of the tasks it lies within, to the likeliest: the
smallest d^2 + log det S, which prefers a narrow task to a broad one around it. No text from outside the tasks is
needed, and no statistic is shared: a task that is added, replaced or removed leaves the regions of the others as they
were, bit by bit, and needs none of their prompts.

It knows no memories, versions or aliases: tensors in, names out.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError

FORMAT = 1
STATE = "last hidden state of the last prompt token but one"
"""The kind of state; a router made for another kind can't be used."""
ACCEPTED_SHARE = 0.975
"""Share of a task's own prompts that its region should hold."""
MIN_STATES = 20
_RANK = 32
_SHRINKAGE = 0.3
_FOLDS = 5
_MOST_MEDIANS = 2.0
"""Largest radius, in medians of the task's own distances: one strange prompt among few must not widen the region."""


@dataclass(frozen=True, eq=False)
class Region:
    """The region of the base's states in which one task's prompts lie."""

    mean: Tensor
    """`(H,)` float32."""
    directions: Tensor
    """`(R, H)` float32, orthonormal rows: where the task's prompts differ most."""
    discounts: Tensor
    """`(R,)` float32 in [0, 1): the share of a squared difference along each direction that is forgiven."""
    noise: float
    """Variance granted to every direction."""
    radius: float
    states: int
    """Prompts it was learned from."""
    accepted: float
    """Share of them that lay within the radius of a region learned from others of them."""

    def distances(self, states: Tensor) -> Tensor:
        """`(N,)` float64 of states `(N, H)`."""
        differences = states.double() - self.mean.double()
        along = differences @ self.directions.double().T
        squared = differences.square().sum(dim=1) - along.square() @ self.discounts.double()
        return (squared.clamp(min=0) / self.noise).sqrt()

    @property
    def log_volume(self) -> float:
        """log det S."""
        return self.mean.numel() * math.log(self.noise) - float((-self.discounts.double()).log1p().sum())


@dataclass(frozen=True)
class RoutedPrompt:
    """A prompt with the task that it was routed to."""

    task: str | None
    """The task whose memory answers; None is the bare base."""
    fits: dict[str, float]
    """By task, the distance over the radius: 1 and less is inside."""


@dataclass(frozen=True, eq=False)
class Router:
    """Regions of a base's tasks. A changed router is a new one."""

    base_revision: str
    hidden_size: int
    regions: Mapping[str, Region] = field(default_factory=dict)

    @classmethod
    def fit(cls, backbone: Backbone, states_by_task: Mapping[str, Tensor]) -> Self:
        """A router of several tasks at once; the same as adding them one by one."""
        router = cls(backbone.revision, backbone.hidden_size)
        for task, states in states_by_task.items():
            router = router.with_task(task, states)
        return router

    def with_task(self, task: str, states: Tensor, *, accepted_share: float = ACCEPTED_SHARE) -> Self:
        """A router that also knows `task`, or knows it anew.

        Args:
            states: `(N, H)`, of prompts as they are served. One a conversation: turns of one conversation are so
                alike that the region would come out too small.

        Raises:
            ConfigError: as `fit_region`.
            ArtifactMismatch: the states are another base's.
        """
        self._check_width(states)
        try:
            region = fit_region(states, accepted_share=accepted_share)
        except ConfigError as error:
            raise ConfigError(f"task {task!r}: {error}") from error
        return replace(self, regions={**self.regions, task: region})

    def without_task(self, task: str) -> Self:
        """A router that no longer knows `task`."""
        return replace(self, regions={name: region for name, region in self.regions.items() if name != task})

    def route(self, states: Tensor) -> list[RoutedPrompt]:
        """Where each of the prompts with states `(N, H)` goes.

        Raises:
            ArtifactMismatch: the states are another base's.
        """
        self._check_width(states)
        distances = {task: region.distances(states.detach().cpu()) for task, region in self.regions.items()}
        return [
            self._route({task: float(values[row]) for task, values in distances.items()}) for row in range(len(states))
        ]

    def _route(self, distances: dict[str, float]) -> RoutedPrompt:
        fits = {task: distance / self.regions[task].radius for task, distance in distances.items()}
        # A state that is not a number is inside of nothing.
        cost = {t: distances[t] ** 2 + self.regions[t].log_volume for t, fit in fits.items() if fit <= 1}
        return RoutedPrompt(min(cost, key=lambda task: cost[task], default=None), fits)

    def save(self, path: Path) -> None:
        """Write one safetensors file, with everything that is not a tensor as JSON in its header."""
        tensors: dict[str, Tensor] = {}
        tasks = []
        for number, (task, region) in enumerate(self.regions.items()):
            plain = asdict(region)
            tensors |= {f"{number}.{name}": plain.pop(name) for name in _TENSORS}
            tasks.append({"task": task, **plain})
        header = {
            "format": FORMAT,
            "state": STATE,
            "base_revision": self.base_revision,
            "hidden_size": self.hidden_size,
            "tasks": tasks,
        }
        save_file(tensors, path, metadata={"router": json.dumps(header, sort_keys=True)})

    @classmethod
    def load(cls, path: Path, backbone: Backbone) -> Self:
        """Read a router that was saved for this base.

        Raises:
            ArtifactMissing: there is no such file.
            ArtifactCorrupt: it is not a router's file.
            ArtifactMismatch: it was made for another base, another kind of state or in another format.
        """
        if not path.is_file():
            raise ArtifactMissing(f"{path} is not there; a router is one safetensors file")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["router"])
                _check_header(path, header, backbone)
                regions: dict[str, Region] = {}
                for number, plain in enumerate(header["tasks"]):
                    tensors = {name: file.get_tensor(f"{number}.{name}") for name in _TENSORS}
                    _check_shapes(tensors, backbone.hidden_size)
                    task = plain.pop("task")
                    regions[task] = Region(**tensors, **plain)
        except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactCorrupt(f"{path} is not a router's file: {error!r}. Fit the router again.") from error
        return cls(backbone.revision, backbone.hidden_size, regions)

    def _check_width(self, states: Tensor) -> None:
        if states.ndim != 2 or states.shape[1] != self.hidden_size:
            raise ArtifactMismatch(
                f"states are {tuple(states.shape)}; this router, of base {self.base_revision}, needs (N, "
                f"{self.hidden_size})"
            )


_TENSORS = ("mean", "directions", "discounts")


def fit_region(states: Tensor, *, accepted_share: float = ACCEPTED_SHARE) -> Region:
    """The region of one task's states `(N, H)`.

    The radius is calibrated on distances to regions learned without the state in question (`_FOLDS` folds), which a
    region of all states undercuts: the share accepted is a little more than stated. With N states no more than N / (N +
    1) can be promised; beyond that the radius is the largest distance.

    Raises:
        ConfigError: too few states, states that are all equal or not finite, or a share outside (0, 1).
    """
    if not 0 < accepted_share < 1:
        raise ConfigError(f"accepted_share is {accepted_share}; expected more than 0 and less than 1")
    if len(states) < MIN_STATES:
        raise ConfigError(f"{len(states)} prompts; a region needs at least {MIN_STATES}")
    states = states.detach().float().cpu()
    if not states.isfinite().all():
        raise ConfigError("states are not finite; expected hidden states of prompts that the base has read")
    scores = torch.empty(len(states), dtype=torch.float64)
    numbers = torch.arange(len(states))
    for fold in range(_FOLDS):
        left_out = numbers % _FOLDS == fold
        scores[left_out] = _ellipsoid(states[~left_out]).distances(states[left_out])
    radius = _radius(scores, accepted_share)
    accepted = float((scores <= radius).double().mean())
    return replace(_ellipsoid(states), radius=radius, accepted=accepted)


def _ellipsoid(states: Tensor) -> Region:
    """Shape of a region, whose radius is yet to be found."""
    count, size = states.shape
    mean = states.double().mean(dim=0)
    _, values, directions = torch.linalg.svd(states.double() - mean, full_matrices=False)
    variances = values.square() / (count - 1)
    noise = _SHRINKAGE * float(variances.sum()) / size
    # Less than this is rounding of float32, not a difference between prompts.
    if noise <= 1e-12 * float(mean.square().mean()):
        raise ConfigError("the states are all equal; expected prompts that differ")
    kept = (1 - _SHRINKAGE) * variances[:_RANK]
    return Region(
        mean=mean.float(),
        directions=directions[:_RANK].float().contiguous(),
        discounts=(kept / (kept + noise)).float(),
        noise=noise,
        radius=math.inf,
        states=count,
        accepted=1.0,
    )


def _radius(scores: Tensor, share: float) -> float:
    """The conformal quantile of calibration distances `(N,)`, within the fence.

    Of distances 1, 2, ... 99 and a share of 0.9 it is 90: the 90th of 99, so that a hundredth prompt lies within with
    probability 0.9.
    """
    count = len(scores)
    rank = min(count, math.ceil((count + 1) * share))
    return min(float(scores.sort().values[rank - 1]), _MOST_MEDIANS * float(scores.median()))


def _check_shapes(tensors: dict[str, Tensor], size: int) -> None:
    expected = {"mean": (size,), "directions": (len(tensors["discounts"]), size)}
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, expected {shape}")


def _check_header(path: Path, header: dict[str, object], backbone: Backbone) -> None:
    expected = {
        "format": FORMAT,
        "state": STATE,
        "base_revision": backbone.revision,
        "hidden_size": backbone.hidden_size,
    }
    for name, value in expected.items():
        if header.get(name) != value:
            raise ArtifactMismatch(
                f"{path}: {name} is {header.get(name)!r}, but base {backbone.name!r} needs {value!r}; fit the router "
                "again on this base"
            )
