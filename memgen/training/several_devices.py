"""One training on as many devices as its config asks for.

Each device holds a copy of the frozen base and of the memory, and computes its share of every step: examples of
supervised training, items and rollouts of training from reward. The result is that of one device, up to float
rounding. The base of the calling process stays where it is, so its device holds two while this runs.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file, save_file

from memgen.backbone.identity import BaseIdentity
from memgen.backbone.loading import Backbone, load_backbone, prepare_process
from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from memgen.experience.pool import Experience
from memgen.experience.recall import Recall
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from memgen.training.devices import Devices, ParentLink, run_distributed
from memgen.training.run_control import UNWATCHED, RunControl

ReportT = TypeVar("ReportT", covariant=True)


class Training(Protocol[ReportT]):
    """`train_weaver`, `train_weaver_grpo`, `train_weaver_on_groups` or `train_trigger` with all of its other arguments:
    `partial(train_weaver, data=data, config=config)`."""

    def __call__(self, host: AdapterHost, memory: str, *, control: RunControl[Any] = ...) -> ReportT: ...


@dataclass(frozen=True)
class _Base:
    """How a process gets the very base that the caller has."""

    name: str
    revision: str
    identity: BaseIdentity
    dtype: torch.dtype
    cache_dir: Path

    @classmethod
    def of(cls, backbone: Backbone, cache_dir: Path) -> "_Base":
        return cls(
            backbone.name,
            backbone.revision,
            backbone.identity,
            backbone.model.dtype,
            cache_dir,
        )

    def load(self, device: torch.device) -> Backbone:
        found = load_backbone(
            self.name,
            cache_dir=self.cache_dir,
            revision=self.revision,
            device=str(device),
            dtype=self.dtype,
        )
        if found.revision != self.revision:
            raise ConfigError(f"base {self.name!r} is now at {found.revision}; training began with {self.revision}")
        if changed := self.identity.changed_parts(found.identity):
            raise ConfigError(f"base {self.name!r} has another {', another '.join(changed)} since training began")
        return found


@dataclass(frozen=True)
class _Job:
    bases: tuple[_Base, ...]
    """The reasoner's, then the weaver's if it has another."""
    memory: MemoryConfig
    decides: str
    """`Memory.decides`."""
    pool: Path | None
    """Folder of the experience that its weaver is cued from; a file, because its states are too large for a pipe."""
    weights: Path
    """The memory's tensors by number: those to start from, then the trained ones."""
    train: Training[Any]
    control: RunControl[Any]
    """Without what is called: each process calls the one that started it instead."""


def train_on_devices(
    train: Training[ReportT],
    count: int,
    host: AdapterHost,
    memory: str,
    *,
    cache_dir: Path,
    control: RunControl[Any] = UNWATCHED,
) -> ReportT:
    """Call `train(host, memory)` in `count` processes, on devices of the kind that the host's base is on.

    On one device it is called here. On several, the memory is changed only if training ends well, the control's
    functions are called in this process, and `should_stop` several times a second.

    Args:
        train: its config asks for `count` devices, and on several it can be pickled with all of its arguments.
        cache_dir: the argument of `load_backbone`.

    Raises:
        ConfigError: there are fewer devices, or `train` can't be pickled.
        DeviceFailed: one of the processes died.
        MemgenError: as `train`.
    """
    if count == 1:
        return train(host, memory, control=control)

    def on_event(event: Any) -> None:
        callback = control.on_checkpoint if isinstance(event, Path) else control.on_step
        if callback:
            callback(event)

    trained, backbone = host.memories[memory], host.backbone
    weaver_base = host.weaver_base(trained.config)
    bases = (backbone,) if weaver_base is backbone else (backbone, weaver_base)
    with tempfile.TemporaryDirectory(prefix="memgen-weights-") as folder:
        pool = None
        if trained.recall is not None:
            pool = Path(folder) / "pool"
            trained.recall.pool.save(pool)
        job = _Job(
            bases=tuple(_Base.of(base, cache_dir) for base in bases),
            memory=trained.config,
            decides=trained.decides,
            pool=pool,
            weights=Path(folder) / "weights.safetensors",
            train=train,
            control=replace(control, on_checkpoint=None, on_step=None, should_stop=None),
        )
        _write(trained, job.weights)
        report: ReportT = run_distributed(
            _train,
            job,
            kind=backbone.device.type,
            count=count,
            on_event=on_event,
            should_stop=control.should_stop or (lambda: False),
        )
        _read(trained, job.weights)
    return report


def _train(devices: Devices, device: torch.device, link: ParentLink, job: _Job) -> Any:
    """What each process does."""
    prepare_process(threads=0)
    host = AdapterHost(*(base.load(device) for base in job.bases))
    memory = host.create("trained", job.memory)
    memory.decides = job.decides
    if job.pool is not None:
        memory.recall = Recall(host.backbone, job.memory, Experience.load(job.pool, host.backbone))
    _read(memory, job.weights)
    control = replace(
        job.control, devices=devices, on_checkpoint=link.send, on_step=link.send, should_stop=link.should_stop
    )
    report = job.train(host, memory.name, control=control)
    if devices.is_first:
        _write(memory, job.weights)
    return report


def _write(memory: Memory, path: Path) -> None:
    tensors = {str(n): p.detach().cpu().contiguous() for n, p in enumerate(memory.every_parameter())}
    save_file(tensors, path)


@torch.no_grad()
def _read(memory: Memory, path: Path) -> None:
    tensors = load_file(path)
    for number, parameter in enumerate(memory.every_parameter()):
        parameter.copy_(tensors[str(number)])
