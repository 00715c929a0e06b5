"""Peak memory of one piece of work, counted by the tensor allocator.

A process's resident size also holds what the C library has not given back and what libraries keep for themselves, so
on the CPU the allocator's own events are added up: each allocation and release of a tensor's storage, in order.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most that was allocated at once during `work`, above what was allocated before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    results = profiled.profiler.kineto_results if profiled.profiler is not None else None
    if results is None:
        raise RuntimeError("torch's profiler kept no events; is this build without Kineto?")
    changes = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    peak: int = max(accumulate((count for _, count in sorted(changes, key=lambda change: change[0])), initial=0))
    return peak


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """What tensors occupy; shared weights once."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())
