"""The trained tensors of one memory: weaver, and trigger if it has a learned one; of form `lora` the LoRA alone.

Parameterised as the public MemGen code does, so that its checkpoints load: LayerNorm then scale on the query latents,
separate queries for prompt and inference, two linear projections (form `embedding`), a linear two-way trigger head.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from memgen.backbone.loading import Backbone
from memgen.backbone.lora import Lora
from memgen.config import MemoryConfig
from memgen.experience.recall import Recall

INVOKE = 1
"""Index of INVOKE among the trigger head's two outputs; 0 is SKIP."""
_FIRST_WORDS = "\nAnswer in the right format:\n"
"""Text that fresh queries of a prompt's end start as: tokens that differ learn faster than copies of one.
Training starts them anew from its data (`memgen.training.weaver.query_start`)."""
LINE_BREAK = "\n"
"""Text that fresh queries inside an answer start as, where a sentence would disturb."""
LATENT_SPREAD = 0.1
"""Standard deviation of fresh latents, as a share of the embedding table's."""


class QueryLatents(nn.Module):
    """K learned input embeddings: LayerNorm, then a scale.

    They start in-distribution: copies of token embeddings, of their size.
    """

    def __init__(self, count: int, hidden_size: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(count, hidden_size))
        self.norm = nn.LayerNorm(hidden_size)
        self.scale = nn.Parameter(torch.ones(()))

    def start_near(self, embeddings: Tensor, spread: float, generator: torch.Generator) -> None:
        """Copy the embeddings `(N, H)` of a text, with normal noise of the standard deviation `spread` on each.

        A longer text is cut to its end; a shorter one is repeated, and ends at the last latent.
        """
        count = len(self.latents)
        copied = embeddings.detach().float().cpu()
        noise = torch.randn(self.latents.shape, generator=generator) * spread
        with torch.no_grad():
            self.latents.copy_(copied.repeat(-(-count // len(copied)), 1)[-count:] + noise)
            self.scale.fill_(copied.std())

    def start_from(self, embeddings: Tensor, generator: torch.Generator) -> None:
        """Copy random rows of an embedding table `(V, H)`, scaled to the table's spread."""
        table = embeddings.detach().float().cpu()
        rows = torch.randint(table.shape[0], (self.latents.shape[0],), generator=generator)
        with torch.no_grad():
            self.latents.copy_(table[rows])
            self.scale.fill_(table.std())

    def forward(self) -> Tensor:
        """`(K, H)` in float32."""
        normed: Tensor = self.norm(self.latents)
        return normed * self.scale


class Memory(nn.Module):
    """One memory. Its modules are what `memory.safetensors` holds; the two LoRAs are beside them."""

    def __init__(
        self, name: str, config: MemoryConfig, base: Backbone, weaver_base: Backbone, *, seed: int | None
    ) -> None:
        """A fresh, untrained memory for the reasoner `base`, its weaver on `weaver_base` (the same, or another).

        Args:
            seed: None computes no values for it to start from: an artifact's replace all of them.
        """
        super().__init__()
        self.name = name
        self.config = config
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        if config.form != "lora":
            self.prompt_queries = QueryLatents(config.latents, weaver_base.hidden_size)
            self._start(self.prompt_queries, _FIRST_WORDS, weaver_base, generator)
        self.weaver = Lora.for_model(weaver_base.model, config, generator)
        if config.form != "lora":
            self.inference_queries = QueryLatents(config.inference_latents, weaver_base.hidden_size)
            self._start(self.inference_queries, LINE_BREAK, weaver_base, generator)
        if config.form == "embedding":
            self.reasoner_to_weaver = _matched_linear(base.hidden_size, weaver_base.hidden_size)
            self.weaver_to_reasoner = _matched_linear(weaver_base.hidden_size, base.hidden_size)
            if seed is not None:
                self._start_in_distribution(base, weaver_base)
        self.trigger: Lora | None = None
        if config.trigger == "lora":
            self.trigger = Lora.for_model(base.model, config, generator)
        if config.trigger in ("lora", "head"):
            self.trigger_head = _undecided_head(base.hidden_size)
        self.recall = Recall(base, config) if config.cue_tokens else None
        """Past experience that its weaver reads of; None if the config has no cues."""
        self.decides = config.trigger
        """What decides at a decision point now: the config's trigger, unless `always` stands in for it."""
        self.to(base.device)

    @property
    def reader(self) -> Lora | None:
        """The adapter under which the reasoner itself reads and writes (form `lora`); None where it is the bare base,
        as beside every memory."""
        return self.weaver if self.config.form == "lora" else None

    @property
    def has_untrained_weaver(self) -> bool:
        """Whether the weaver's LoRA still changes nothing: every B is zero."""
        return not any(bool(b.any()) for _, b in self.weaver.factors.values())

    @property
    def has_untrained_trigger(self) -> bool:
        """Whether the trigger is to be learned and was not yet: its head is zero, so every probability is one half."""
        if self.config.trigger not in ("lora", "head"):
            return False
        return not any(bool(parameter.any()) for parameter in self.trigger_head.parameters())

    def weave_until_trigger_is_trained(self) -> None:
        """Let `always` stand in for an untrained trigger, which would keep the memory silent in greedy decoding."""
        self.decides = "always" if self.has_untrained_trigger else self.config.trigger

    def queries(self, *, at_prompt_end: bool) -> QueryLatents:
        return self.prompt_queries if at_prompt_end else self.inference_queries

    def weaver_parameters(self) -> list[nn.Parameter]:
        """What weaver training changes, in a stable order: LoRA factors first."""
        modules: list[nn.Module] = [self.prompt_queries] if self.config.form != "lora" else []
        if self.config.max_insertions > 0:
            modules.append(self.inference_queries)
        if self.config.form == "embedding":
            modules += [self.reasoner_to_weaver, self.weaver_to_reasoner]
        return [*self.weaver.parameters(), *(p for module in modules for p in module.parameters())]

    def trigger_parameters(self) -> list[nn.Parameter]:
        """What trigger training changes; empty if the trigger is not learned."""
        lora = list(self.trigger.parameters()) if self.trigger is not None else []
        head = list(self.trigger_head.parameters()) if self.config.trigger in ("lora", "head") else []
        return [*lora, *head]

    def every_parameter(self) -> list[nn.Parameter]:
        """Trained or not, in a stable order."""
        loras = [lora for lora in (self.weaver, self.trigger) if lora is not None]
        return [*self.parameters(), *(p for lora in loras for p in lora.parameters())]

    def _start(
        self, queries: QueryLatents, words: str, weaver_base: Backbone, generator: torch.Generator | None
    ) -> None:
        """Form `cache` starts as words that hardly disturb the base's answers (research/method.md)."""
        if generator is None:
            nn.init.zeros_(queries.latents)
        elif self.config.form == "cache":
            start_as(queries, _tokens(weaver_base, words), weaver_base, generator)
        else:
            queries.start_from(_embeddings(weaver_base), generator)

    @torch.no_grad()
    def _start_in_distribution(self, base: Backbone, weaver_base: Backbone) -> None:
        """Let latents start near the embedding of a line break, and moved from it by little.

        The weaver's last hidden states are far larger than embeddings: fed back through an identity they would disturb
        the base's answers, as a few line breaks hardly do (research/method.md).
        """
        ours, theirs = (_embeddings(b).float() for b in (base, weaver_base))
        self.reasoner_to_weaver.weight.mul_(theirs.std() / ours.std())
        embeds = self.prompt_queries()[None].to(theirs.device, weaver_base.model.dtype)
        hidden = weaver_base.model.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        self.weaver_to_reasoner.weight.mul_(LATENT_SPREAD * ours.std().cpu() / hidden.float().std().cpu())
        self.weaver_to_reasoner.bias.copy_(ours[_tokens(base, LINE_BREAK)[-1]])


def start_as(queries: QueryLatents, token_ids: Sequence[int], base: Backbone, generator: torch.Generator) -> None:
    """Start queries of form `cache` as tokens of `base`, each moved by `LATENT_SPREAD` of the table's spread."""
    table = _embeddings(base)
    queries.start_near(table[list(token_ids)], LATENT_SPREAD * float(table.float().std()), generator)


def _tokens(base: Backbone, text: str) -> list[int]:
    return [int(token) for token in base.tokenizer(text, add_special_tokens=False).input_ids]


def _embeddings(base: Backbone) -> Tensor:
    return cast(Tensor, base.model.get_input_embeddings().weight)


def _matched_linear(inputs: int, outputs: int) -> nn.Linear:
    """The identity, cut or padded with zeros where the sizes differ."""
    linear = nn.Linear(inputs, outputs)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(outputs, inputs))
        linear.bias.zero_()
    return linear


def _undecided_head(hidden_size: int) -> nn.Linear:
    """Probability one half everywhere: an untrained trigger prefers nothing, and greedy decoding skips."""
    head = nn.Linear(hidden_size, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
