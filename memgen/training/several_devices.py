"""A weaver's supervised training on as many devices as its config asks for.

Each device holds a copy of the frozen base and of the trained tensors, and computes its share of every step's examples.
The result is that of one device, up to float rounding. The base of the calling process stays where it is, so its
device holds two while this runs.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from memgen.backbone import Backbone, load_backbone, prepare_process
from memgen.config import MemoryConfig, TrainingConfig
from memgen.errors import ConfigError
from memgen.host import AdapterHost
from memgen.memory import Memory
from memgen.training.devices import Devices, Line, run_distributed
from memgen.training.examples import Example, ExampleSet
from memgen.training.optimizing import StepReport
from memgen.training.weaver_sft import TrainingReport, train_weaver


@dataclass(frozen=True)
class _Base:
    """How a process gets the very base that the caller has."""

    name: str
    revision: str
    dtype: torch.dtype
    pack_weights: bool
    cache_dir: Path

    @classmethod
    def of(cls, backbone: Backbone, cache_dir: Path) -> "_Base":
        return cls(backbone.name, backbone.revision, backbone.model.dtype, backbone.pack_weights, cache_dir)

    def load(self, device: torch.device) -> Backbone:
        found = load_backbone(
            self.name,
            cache_dir=self.cache_dir,
            revision=self.revision,
            device=str(device),
            dtype=self.dtype,
            pack_weights=self.pack_weights,
        )
        if found.revision != self.revision:
            raise ConfigError(f"base {self.name!r} is now at {found.revision}; training began with {self.revision}")
        return found


@dataclass(frozen=True)
class _Job:
    bases: tuple[_Base, ...]
    """The reasoner's, then the weaver's if it has another."""
    memory: MemoryConfig
    weights: Path
    """The trained tensors by number: as they are given, then as they are returned."""
    data: ExampleSet
    held_out: tuple[Example, ...]
    config: TrainingConfig
    moments: Path | None
    moments_out: Path | None
    checkpoint: Path | None
    checkpoint_interval_seconds: float


def train_weaver_on_devices(
    host: AdapterHost,
    memory: str,
    data: ExampleSet,
    config: TrainingConfig,
    *,
    cache_dir: Path,
    held_out: Sequence[Example] = (),
    moments: Path | None = None,
    moments_out: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_interval_seconds: float = 30.0,
    on_checkpoint: Callable[[Path], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingReport:
    """`train_weaver` in `config.devices` processes, devices of the kind that the host's base is on.

    Args as of `train_weaver`, all called in this process, and `cache_dir` as of `load_backbone`. On one device it is
    `train_weaver`; on several, the memory is changed only if training ends well, and `should_stop` is asked several
    times a second.

    Raises:
        ConfigError: there are fewer devices, or as `train_weaver`.
        DeviceFailed: one of the processes died.
        NothingToTrain, TrainingDiverged, Cancelled: as `train_weaver`.
    """
    if config.devices == 1:
        return train_weaver(
            host,
            memory,
            data,
            config,
            held_out=held_out,
            moments=moments,
            moments_out=moments_out,
            checkpoint=checkpoint,
            checkpoint_interval_seconds=checkpoint_interval_seconds,
            on_checkpoint=on_checkpoint,
            on_step=on_step,
            should_stop=should_stop,
        )

    def on_event(event: StepReport | Path) -> None:
        if isinstance(event, StepReport):
            if on_step:
                on_step(event)
        elif on_checkpoint:
            on_checkpoint(event)

    trained, backbone = host.memories[memory], host.backbone
    weaver_base = host.weaver_base(trained.config)
    bases = (backbone,) if weaver_base is backbone else (backbone, weaver_base)
    with tempfile.TemporaryDirectory(prefix="memgen-weights-") as folder:
        job = _Job(
            bases=tuple(_Base.of(base, cache_dir) for base in bases),
            memory=trained.config,
            weights=Path(folder) / "weights.safetensors",
            data=data,
            held_out=tuple(held_out),
            config=config,
            moments=moments,
            moments_out=moments_out,
            checkpoint=checkpoint,
            checkpoint_interval_seconds=checkpoint_interval_seconds,
        )
        _write(trained, job.weights)
        report = run_distributed(
            _train,
            job,
            kind=backbone.device.type,
            count=config.devices,
            on_event=on_event,
            should_stop=should_stop or (lambda: False),
        )
        _read(trained, job.weights)
    return report


def _train(devices: Devices, device: torch.device, line: Line, job: _Job) -> TrainingReport:
    """What each process does."""
    prepare_process(threads=0)
    host = AdapterHost(*(base.load(device) for base in job.bases))
    memory = host.create("trained", job.memory)
    _read(memory, job.weights)
    report = train_weaver(
        host,
        memory.name,
        job.data,
        job.config,
        held_out=job.held_out,
        devices=devices,
        moments=job.moments,
        moments_out=job.moments_out,
        checkpoint=job.checkpoint,
        checkpoint_interval_seconds=job.checkpoint_interval_seconds,
        on_checkpoint=line.tell,
        on_step=line.tell,
        should_stop=line.should_stop,
    )
    if devices.is_first:
        _write(memory, job.weights)
    return report


def _write(memory: Memory, path: Path) -> None:
    tensors = {str(n): p.detach().cpu().contiguous() for n, p in enumerate(memory.weaver_parameters())}
    save_file(tensors, path)


@torch.no_grad()
def _read(memory: Memory, path: Path) -> None:
    tensors = load_file(path)
    for number, parameter in enumerate(memory.weaver_parameters()):
        parameter.copy_(tensors[str(number)])
