"""What an experiment changes of how a memory is woven in one answer: which latents stay, when it weaves, how often.

Nothing that serves asks for one (`memgen.analysis` does). It knows no cluster and no statistics.

A latent that does not stay is not there for anything read after its insertion. Form `embedding`: it is not inserted,
and what follows closes up. Form `cache`: latents behind the last one that stays are not inserted, so keeping the first
k of K is weaving with k queries, and keeping none is not weaving; one in front of that leaves its position empty, for
keys are rotated by their positions. The latents that stay are what they were when all were woven.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Intervention:
    """Each field left at None changes nothing."""

    keep: Callable[[int, Tensor], Sequence[bool]] | None = None
    """Called once for each insertion with its number (0 is the first of the answer) and its latents `(K, H)`, as
    `Decision.states` has them; says of each whether it stays."""
    decide: Callable[[int], bool | None] | None = None
    """Called with the number of the decision point (0 is the prompt's end); says whether to weave there, and None
    leaves that to the trigger, as it always is where there is none."""
    budget: int | None = None
    """Insertions that may follow the prompt's, at most the config's `max_insertions`."""


UNTOUCHED = Intervention()
