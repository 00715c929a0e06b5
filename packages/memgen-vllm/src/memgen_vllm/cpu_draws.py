"""In the worker, on a CPU: generators of seeded requests that can take back what they drew last.

vLLM samples for each request of a step and drops what it drew where the step read only a chunk of what is to be read.
It takes the draw back by the generator's offset, which CUDA's generators have and the CPU's do not: there the engine
would end. An insertion may be cut by chunks like any prompt.
"""

from typing import Any, Self

import torch

_DRAW = 4
"""Offset that one draw takes, as vLLM counts."""


class RewindableGenerator(torch.Generator):
    """A CPU generator whose offset is 4 behind a draw, and 0 once that is taken back."""

    before: torch.Tensor | None = None
    """State in front of the last draw."""

    @classmethod
    def of(cls, generator: torch.Generator) -> Self:
        made = cls()
        made.set_state(generator.get_state())
        return made

    def get_offset(self) -> int:
        return _DRAW

    def set_offset(self, offset: int) -> torch.Generator:
        if offset == 0 and self.before is not None:
            self.set_state(self.before)
        return self


def add_request(original: Any, self: Any, request: Any) -> Any:
    """`InputBatch.add_request`."""
    if request.generator is not None and not isinstance(request.generator, RewindableGenerator):
        request.generator = RewindableGenerator.of(request.generator)
    return original(self, request)


def forward_cpu(original: Any, self: Any, logits: Any, generators: Any, *args: Any, **kwargs: Any) -> Any:
    """`TopKTopPSampler.forward_cpu`, which draws one number of each generator."""
    for generator in generators.values():
        if isinstance(generator, RewindableGenerator):
            generator.before = generator.get_state()
    return original(self, logits, generators, *args, **kwargs)
