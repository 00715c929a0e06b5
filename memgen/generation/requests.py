"""What goes into generation and what comes out: requests, decisions of the trigger, answers; whether they fit."""

from dataclasses import dataclass, field

from torch import Tensor

from memgen.errors import PromptTooLong
from memgen.generation.draws import Alternative
from memgen.generation.interventions import UNTOUCHED, Intervention
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost


@dataclass(frozen=True)
class GenerationRequest:
    prompt_ids: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    memory: str | None = None
    """Name of a memory loaded in the host; None is the bare base."""
    return_latents: bool = False
    """Return the insertions' latents with the answer."""
    cue_ids: tuple[int, ...] = ()
    """Retrieved text that the weaver reads at every insertion and the reasoner never does; unread if nothing weaves."""
    intervention: Intervention = UNTOUCHED
    """What an experiment changes of how the memory is woven."""


@dataclass(frozen=True)
class Decision:
    """What the trigger decided at one decision point."""

    position: int
    """How many tokens, of prompt and answer, stand in front of this point."""
    probability: float
    """Probability of INVOKE."""
    invoked: bool
    latents: int
    """Latent tokens inserted; 0 if it skipped, or if an intervention kept none."""
    reread: int = 0
    """Tokens of the prompt that the weaver read again; what it made of them stands in front of the latents."""
    states: Tensor | None = field(default=None, compare=False, repr=False)
    """`(latents, H)` on request: last hidden states (form `cache`) or input embeddings (form `embedding`)."""


@dataclass(frozen=True)
class Timings:
    """Seconds of the batch that the answer was part of; all its rows report the same."""

    prompt: float = 0.0
    trigger: float = 0.0
    weave: float = 0.0
    """Steps in which any row wove; the other rows' tokens are read in the same passes."""
    decode: float = 0.0
    """All other steps."""
    first_token: float = 0.0
    """Time from the call to the first token of the batch."""
    total: float = 0.0
    """Time from the call to this row's end."""


@dataclass(frozen=True)
class DrawnTokens:
    """How the tokens of an answer were drawn, the end token's too if one ended it."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    """Natural, under the model itself; None if they are not known."""
    drawn_logprobs: tuple[float, ...] | None = None
    """Natural, under the distributions that the tokens were drawn from, where those were others and are known."""


@dataclass(frozen=True)
class Generation:
    token_ids: tuple[int, ...]
    """Without the token that ended the answer."""
    text: str
    finish_reason: str
    """`stop` (end of turn or stop string), `length` or `cancelled`."""
    decisions: tuple[Decision, ...]
    prompt_tokens: int
    timings: Timings
    logprobs: tuple[float, ...] | None = None
    """On request: of each token, under the model's raw distribution; like `token_ids`, with no end token."""
    alternatives: tuple[tuple[Alternative, ...], ...] | None = None
    """On request: the likeliest tokens at the place of each token, under the model's raw distribution."""
    end_token: int | None = None
    """The token that ended the answer; None if none did."""
    stop_string: str | None = None
    """The stop string that ended the answer; None if none did."""
    end_logprob: float | None = None
    """On request: log probability of `end_token`."""
    drawn: DrawnTokens | None = None
    """On request: how it was drawn."""

    @property
    def insertions(self) -> tuple[Decision, ...]:
        """The decisions to INVOKE."""
        return tuple(decision for decision in self.decisions if decision.invoked)


def most_new_tokens(host: AdapterHost, request: GenerationRequest) -> int:
    """How many new tokens of an answer fit the model's context behind the prompt and all that may be woven; 0 or less
    if none does. What the request itself asks for does not count."""
    read = len(request.prompt_ids)
    if request.memory is None:
        return host.backbone.max_tokens - read
    config = host.memories[request.memory].config
    read += config.most_latents + len(config.tokens_to_reread(request.prompt_ids))
    room = host.backbone.max_tokens - read
    beside = host.weaver_base(config).max_tokens - len(request.cue_ids) if request.cue_ids else None
    if beside is None:
        return room
    return min(room, beside - read) if config.form == "embedding" else room if beside >= 0 else 0


def check_fits(host: AdapterHost, request: GenerationRequest) -> None:
    """Raise PromptTooLong unless prompt, all that may be woven, and answer fit the model's context.

    A cue counts where it stands: in the weaver's stream of form `embedding`, by itself for form `cache`.
    """
    latents = reread = 0
    if request.memory is not None:
        config = host.memories[request.memory].config
        latents, reread = config.most_latents, len(config.tokens_to_reread(request.prompt_ids))
    needed = len(request.prompt_ids) + reread + latents + request.sampling.max_new_tokens
    if needed > host.backbone.max_tokens:
        raise PromptTooLong(
            f"the prompt has {len(request.prompt_ids)} tokens; with {f'{reread} read again, ' if reread else ''}"
            f"{latents} latents and "
            f"{request.sampling.max_new_tokens} new tokens that is {needed}, more than the model's "
            f"{host.backbone.max_tokens}. Shorten the messages or lower max_tokens."
        )
    if request.memory is not None and request.cue_ids:
        behind = needed if config.form == "embedding" else 0
        longest = host.weaver_base(config).max_tokens
        if len(request.cue_ids) + behind > longest:
            raise PromptTooLong(
                f"the cue has {len(request.cue_ids)} tokens, and {behind} may follow it in its stream; the weaver's "
                f"model takes {longest}. Give the cue a smaller budget."
            )
